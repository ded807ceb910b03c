"""How log lines look: one event, one line, whatever is in its message."""

from __future__ import annotations

import logging
import time
from typing import Any

from streamweave.lib.logs import one_line


class OneLineFormatter(logging.Formatter):
    """Time (UTC), level, logger and message in one line, so that a file's name cannot feign a line of its own.

    A traceback follows in lines that begin with "  | ", which no line of an event does.
    """

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {name}: {message}", style="{")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own names)
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join(f"  | {one_line(line)}" for line in text.splitlines())
