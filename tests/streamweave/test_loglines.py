from __future__ import annotations

import logging
import sys
from typing import Any

from streamweave.lib.loglines import OneLineFormatter


def record(message: str, *args: object, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("harvest", logging.INFO, __file__, 1, message, args, exc_info)


def test_a_name_with_a_line_break_gives_one_line():
    line = OneLineFormatter().format(record("Took %s.", "x\n2026-11-22T00:00:00.000Z ERROR fake: \x1b[31mred\u2028\r"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert line.endswith(r"Took x\n2026-11-22T00:00:00.000Z ERROR fake: \x1b[31mred\u2028\r.")


def test_a_traceback_cannot_be_taken_for_events():
    try:
        raise ValueError("bad name\n2026-11-22T00:00:00.000Z ERROR fake: y")
    except ValueError:
        text = OneLineFormatter().format(record("It failed.", exc_info=sys.exc_info()))
    first, *rest = text.splitlines()
    assert first.endswith("INFO harvest: It failed.")
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_a_name_that_is_not_unicode_can_be_logged():
    line = OneLineFormatter().format(record("Took %s.", b"\xff.d".decode(errors="surrogateescape")))
    line.encode()
