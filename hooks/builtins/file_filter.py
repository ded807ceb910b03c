"""file_filter: which files are taken at all, by name, path and size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hooks.builtins.base import AcceptRule, ConfigError, globs
from hooks.decisions import BeforeTransfer, Verdict
from hooks.facts import FileFacts
from hooks.patterns import PATTERNS_SCHEMA, first_match

_SIZE = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


class FileFilter(AcceptRule):
    """A file is skipped if an exclude pattern matches it, if there are include patterns and none matches, or if its
    size is out of bounds. Exclusion is stronger than inclusion; both bounds belong to what is taken.
    """

    config_schema = {
        "title": "File filter",
        "description": "Files that do not pass are skipped: they are listed, and never copied.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "include_patterns": {
                **PATTERNS_SCHEMA,
                "title": "Include",
                "description": "Only files that match one of these are taken. Without “/” a pattern is held against the"
                " name, with “/” against the whole path; “**” stands for any folders. Case does not matter.",
            },
            "exclude_patterns": {
                **PATTERNS_SCHEMA,
                "title": "Exclude",
                "description": "Files that match one of these are skipped, whatever is included.",
            },
            "min_size_bytes": {**_SIZE, "title": "Smallest size", "description": "In bytes; 1 skips empty files."},
            "max_size_bytes": {**_SIZE, "title": "Greatest size", "description": "In bytes."},
        },
    }

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._include = globs(config, "include_patterns")
        self._exclude = globs(config, "exclude_patterns")
        self._least: int = config.get("min_size_bytes", 0)
        self._most: int | None = config.get("max_size_bytes")
        if self._most is not None and self._most < self._least:
            raise ConfigError("max_size_bytes", f"{self._most} is less than min_size_bytes, {self._least}")

    def before_transfer(self, file: FileFacts) -> BeforeTransfer:
        why = self._why_not(file)
        return BeforeTransfer(Verdict.SKIP, why) if why else BeforeTransfer()

    def _why_not(self, file: FileFacts) -> str | None:
        excluded = first_match(self._exclude, file)
        if excluded:
            return f"matches the exclude pattern “{excluded.pattern}”"
        if self._include and not first_match(self._include, file):
            return "matches none of the include patterns"
        if file.size_bytes < self._least:
            return f"{file.size_bytes} bytes are less than min_size_bytes, {self._least}"
        if self._most is not None and file.size_bytes > self._most:
            return f"{file.size_bytes} bytes are more than max_size_bytes, {self._most}"
        return None
