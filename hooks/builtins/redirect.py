"""redirect: which files go to another storage location or another folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hooks.builtins.base import AcceptRule, ConfigError, globs
from hooks.decisions import BeforeTransfer
from hooks.facts import FileFacts
from hooks.patterns import PATTERNS_SCHEMA, first_match
from hooks.sub_paths import MAX_LENGTH, why_not


class Redirect(AcceptRule):
    """The first rule that a file matches says where it goes; a file that matches none stays where it was going."""

    config_schema = {
        "title": "Redirect",
        "description": "Sends files to another storage location, to another folder, or both.",
        "type": "object",
        "additionalProperties": False,
        "required": ["rules"],
        "properties": {
            "rules": {
                "title": "Rules",
                "description": "Tried in order; the first that matches counts.",
                "type": "array",
                "minItems": 1,
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "patterns": {
                            **PATTERNS_SCHEMA,
                            "title": "Files",
                            "description": "Names like “*.raw” or paths like “calibration/**”; every file if absent.",
                        },
                        "storage": {
                            "title": "Storage location",
                            "description": "Its name or id.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 200,
                        },
                        "sub_path": {
                            "title": "Folder",
                            "description": "Below the instrument's folder, such as “raw/2026”.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": MAX_LENGTH,
                        },
                    },
                },
            }
        },
    }

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._rules = []
        for index, rule in enumerate(config["rules"]):
            where = f"rules[{index}]"
            storage, sub_path = rule.get("storage"), rule.get("sub_path")
            if storage is None and sub_path is None:
                raise ConfigError(where, "must say where to: give storage, sub_path or both")
            wrong = sub_path and why_not(sub_path)
            if wrong:
                raise ConfigError(f"{where}.sub_path", wrong)
            decision = BeforeTransfer(storage=storage, sub_path=sub_path)
            self._rules.append((globs(rule, "patterns", f"{where}."), decision))

    def before_transfer(self, file: FileFacts) -> BeforeTransfer:
        for patterns, decision in self._rules:
            if not patterns or first_match(patterns, file):
                return decision
        return BeforeTransfer()
