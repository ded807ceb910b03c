"""metadata_enrichment: what path, name and first bytes of a file tell about it."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from hooks.builtins.base import ConfigError, EnrichRule, glob, regex
from hooks.facts import FileFacts
from hooks.patterns import MAX_PATTERN_LENGTH, MAX_TEXT_LENGTH
from hooks.text import decode_head, storable

DEFAULT_HEAD_BYTES = 65536
MAX_HEAD_BYTES = 1 << 20
MAX_VALUE_LENGTH = 1000
"""Characters; a longer value is cut and ends in "…"."""


class MetadataEnrichment(EnrichRule):
    """The rules add up; where two find the same key, the later one wins. What is empty is not taken.

    Only the first bytes of a file are ever read, and only where a rule on its content asks for them.
    """

    config_schema = {
        "title": "Metadata enrichment",
        "description": "Reads metadata out of paths, names and headers of files.",
        "type": "object",
        "additionalProperties": False,
        "required": ["rules"],
        "properties": {
            "rules": {
                "title": "Rules",
                "description": "All are tried; where two find the same key, the later one wins.",
                "type": "array",
                "minItems": 1,
                "maxItems": 50,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["source"],
                    "properties": {
                        "source": {
                            "title": "Where to look",
                            "description": "The path below the instrument's folder, the file's name, or the beginning"
                            " of its content.",
                            "enum": ["path", "filename", "content"],
                        },
                        "format": {
                            "title": "How to read the content",
                            "description": "As text for the pattern, or as lines of key and value.",
                            "enum": ["regex", "key_value"],
                            "default": "regex",
                        },
                        "pattern": {
                            "title": "Pattern",
                            "description": "A regular expression (RE2 syntax) whose named groups, (?P<name>…), become"
                            " metadata.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": MAX_PATTERN_LENGTH,
                            "examples": [r"^(?P<date>\d{8})_(?P<compound>[^_/]+)_(?P<nucleus>[^/]+)/"],
                        },
                        "keys": {
                            "title": "Keys",
                            "description": "For key_value: which keys of the file to take, and their names in the"
                            " metadata. Upper and lower case are alike.",
                            "type": "object",
                            "minProperties": 1,
                            "maxProperties": 200,
                            "propertyNames": {"minLength": 1, "maxLength": 200},
                            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 200},
                            "examples": [{"PULPROG": "pulse_program"}],
                        },
                        "prefix": {
                            "title": "Prefix",
                            "description": "For key_value: what a line with a key begins with, such as “##$” of JCAMP.",
                            "type": "string",
                            "maxLength": 20,
                        },
                        "separator": {
                            "title": "Separator",
                            "description": "For key_value: what stands between key and value.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 20,
                            "default": "=",
                        },
                        "filename_pattern": {
                            "title": "Files",
                            "description": "Only files with such a name or path, such as “acqus” or “*.dx”.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": MAX_PATTERN_LENGTH,
                        },
                        "max_bytes": {
                            "title": "How far to read",
                            "description": f"Bytes from the beginning of the file; a pattern looks at the first"
                            f" {MAX_TEXT_LENGTH} characters at most.",
                            "type": "integer",
                            "minimum": 1,
                            "maximum": MAX_HEAD_BYTES,
                            "default": DEFAULT_HEAD_BYTES,
                        },
                    },
                },
            }
        },
    }

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._rules = [_rule(rule, f"rules[{index}]") for index, rule in enumerate(config["rules"])]

    @classmethod
    def reads_content(cls, config: Any) -> bool:
        return '"content"' in json.dumps(config, default=str)

    def metadata(self, file: FileFacts) -> dict[str, Any]:
        rules = [rule for rule in self._rules if not rule.only or rule.only.matches(file)]
        wanted_bytes = max((rule.head_bytes for rule in rules), default=0)
        head = file.read_head(wanted_bytes) if wanted_bytes and file.read_head else b""
        found: dict[str, Any] = {}
        for rule in rules:
            for key, value in rule.find(file, head[: rule.head_bytes]).items():
                value = storable(value.strip(), MAX_VALUE_LENGTH)
                if value:
                    found[key] = value
        return found


class _Rule(ABC):
    head_bytes = 0

    def __init__(self, rule: Mapping[str, Any], where: str) -> None:
        pattern = rule.get("filename_pattern")
        self.only = glob(pattern, f"{where}.filename_pattern") if pattern else None
        self.source: str = rule["source"]
        if self.source == "content":
            self.head_bytes = rule.get("max_bytes", DEFAULT_HEAD_BYTES)

    @abstractmethod
    def find(self, file: FileFacts, head: bytes) -> Mapping[str, str]: ...


class _RegexRule(_Rule):
    takes = frozenset({"source", "format", "pattern", "filename_pattern"})

    def __init__(self, rule: Mapping[str, Any], where: str) -> None:
        super().__init__(rule, where)
        if "pattern" not in rule:
            raise ConfigError(f"{where}.pattern", f"is missing, and a rule on the {self.source} cannot do without it")
        self._regex = regex(rule["pattern"], f"{where}.pattern")
        if not self._regex.names:
            raise ConfigError(f"{where}.pattern", "has no named group, such as (?P<date>…), so it would find nothing")

    def find(self, file: FileFacts, head: bytes) -> Mapping[str, str]:
        texts = {"path": file.path, "filename": file.filename}
        return self._regex.find(texts.get(self.source) or decode_head(head)) or {}


class _KeyValueRule(_Rule):
    """Lines of `<prefix><key><separator><value>`, as in JCAMP-DX headers: `##$PULPROG= <zg30>`.

    The first line with a key counts. The angle brackets around a text in JCAMP are left out.
    """

    takes = frozenset({"source", "format", "keys", "prefix", "separator", "filename_pattern"})

    def __init__(self, rule: Mapping[str, Any], where: str) -> None:
        super().__init__(rule, where)
        if "keys" not in rule:
            raise ConfigError(f"{where}.keys", "is missing, and the format key_value cannot do without it")
        self._names = {key.strip().casefold(): name for key, name in rule["keys"].items()}
        self._prefix: str = rule.get("prefix", "")
        self._separator: str = rule.get("separator", "=")

    def find(self, file: FileFacts, head: bytes) -> Mapping[str, str]:
        if len(head) == self.head_bytes and file.size_bytes > len(head):
            head = head[: head.rfind(b"\n") + 1]  # the last line is cut in the middle
        found: dict[str, str] = {}
        for line in io.StringIO(decode_head(head), newline=None):
            if not line.startswith(self._prefix):
                continue
            key, separator, value = line.removeprefix(self._prefix).partition(self._separator)
            name = self._names.get(key.strip().casefold())
            if separator and name is not None:
                value = value.strip()
                bracketed = value.startswith("<") and value.endswith(">")
                found.setdefault(name, value[1:-1] if bracketed else value)
        return found


def _rule(rule: Mapping[str, Any], where: str) -> _Rule:
    content = rule["source"] == "content"
    if not content and "format" in rule:
        raise ConfigError(f"{where}.format", "is for rules on the content only")
    kind = _KeyValueRule if rule.get("format") == "key_value" else _RegexRule
    unused = rule.keys() - kind.takes - ({"max_bytes"} if content else set())
    if unused:
        raise ConfigError(f"{where}.{min(unused)}", "has no meaning in a rule of this source and format")
    return kind(rule, where)
