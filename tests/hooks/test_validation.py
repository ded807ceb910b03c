from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from hooks.builtins import BUILTINS
from hooks.validation import validate_config
from tests.hooks.test_builtins import SEED_FILTER, SEED_RULE

KEY_VALUE = {
    "source": "content",
    "format": "key_value",
    "prefix": "##$",
    "separator": "=",
    "keys": {"PULPROG": "pulse_program"},
    "filename_pattern": "acqus",
    "max_bytes": 65536,
}


@pytest.mark.parametrize(
    ("builtin", "config"),
    [
        ("file_filter", {}),
        ("file_filter", SEED_FILTER),
        ("metadata_enrichment", {"rules": [SEED_RULE, KEY_VALUE]}),
        ("metadata_enrichment", {"rules": [{"source": "content", "pattern": "(?P<x>y)", "max_bytes": 10}]}),
        (
            "access_assignment",
            {"grants": [{"to": "owner"}, {"to": "project", "metadata_key": "project", "when": ["*"]}]},
        ),
        ("redirect", {"rules": [{"storage": "S3 dev bucket"}, {"patterns": ["*.raw"], "sub_path": "raw/2026"}]}),
        *((name, None) for name in BUILTINS),
    ],
)
def test_a_good_config_is_taken(builtin: str, config: Any) -> None:
    validate_config("builtin", builtin, config)


@pytest.mark.parametrize(
    ("builtin", "config", "message"),
    [
        ("file_filter", [], "[] is not of type 'object'"),
        ("file_filter", {"min_size": 1}, "'min_size' was unexpected"),
        ("file_filter", {"min_size_bytes": -1}, "min_size_bytes: -1 is less than the minimum of 0"),
        ("file_filter", {"min_size_bytes": "1"}, "min_size_bytes: '1' is not of type 'integer'"),
        ("file_filter", {"min_size_bytes": True}, "min_size_bytes: True is not of type 'integer'"),
        ("file_filter", {"min_size_bytes": 2, "max_size_bytes": 1}, "max_size_bytes: 1 is less than min_size_bytes, 2"),
        ("file_filter", {"exclude_patterns": "*.tmp"}, "exclude_patterns: '*.tmp' is not of type 'array'"),
        ("file_filter", {"exclude_patterns": ["*", "a\\b"]}, "exclude_patterns[1]: “a\\b” cannot be used: it holds"),
        ("file_filter", {"include_patterns": ["[z-a]"]}, "include_patterns[0]: “[z-a]” cannot be used"),
        ("file_filter", {"include_patterns": ["a\0"]}, "it holds a NUL character"),
        ("file_filter", {"include_patterns": ["a\ud800"]}, "it holds text that is not valid Unicode"),
        ("file_filter", {"max_size_bytes": float("nan")}, "it is not JSON that can be kept"),
        ("file_filter", {"include_patterns": ["x" * 900] * 100}, "more than 65536"),
        ("metadata_enrichment", {}, "'rules' is a required property"),
        ("metadata_enrichment", {"rules": []}, "rules: [] should be non-empty"),
        ("metadata_enrichment", {"rules": [{"pattern": "(?P<a>b)"}]}, "rules[0]: 'source' is a required property"),
        ("metadata_enrichment", {"rules": [{"source": "header"}]}, "rules[0].source: 'header' is not one of"),
        ("metadata_enrichment", {"rules": [SEED_RULE, {"source": "path"}]}, "rules[1].pattern: is missing"),
        (
            "metadata_enrichment",
            {"rules": [{"source": "path", "pattern": "("}]},
            "rules[0].pattern: “(” cannot be used",
        ),
        ("metadata_enrichment", {"rules": [{"source": "path", "pattern": "(?=a)"}]}, "no look-ahead"),
        ("metadata_enrichment", {"rules": [{"source": "path", "pattern": "abc"}]}, "rules[0].pattern: has no named"),
        ("metadata_enrichment", {"rules": [{**KEY_VALUE, "pattern": "a"}]}, "rules[0].pattern: has no meaning"),
        ("metadata_enrichment", {"rules": [{**SEED_RULE, "max_bytes": 5}]}, "rules[0].max_bytes: has no meaning"),
        ("metadata_enrichment", {"rules": [{**SEED_RULE, "format": "regex"}]}, "rules[0].format: is for rules on"),
        ("metadata_enrichment", {"rules": [{"source": "content", "format": "key_value"}]}, "rules[0].keys: is missing"),
        ("metadata_enrichment", {"rules": [{**KEY_VALUE, "keys": {"A": 1}}]}, "rules[0].keys.A: 1 is not of type"),
        ("metadata_enrichment", {"rules": [{**KEY_VALUE, "max_bytes": 1 << 30}]}, "rules[0].max_bytes: 1073741824 is"),
        (
            "metadata_enrichment",
            {"rules": [{**KEY_VALUE, "filename_pattern": "a\\b"}]},
            "rules[0].filename_pattern: “a",
        ),
        ("access_assignment", {"grants": [{}]}, "grants[0]: 'to' is a required property"),
        ("access_assignment", {"grants": [{"to": "everybody"}]}, "grants[0].to: 'everybody' is not one of"),
        ("access_assignment", {"grants": [{"to": "user"}]}, "grants[0]: name the user by exactly one of email, id"),
        ("access_assignment", {"grants": [{"to": "user", "name": "x"}]}, "grants[0]: the user cannot be named by name"),
        ("access_assignment", {"grants": [{"to": "owner", "id": "x"}]}, "grants[0]: the owner cannot be named by id"),
        ("access_assignment", {"grants": [{"to": "group", "id": "x", "name": "y"}]}, "grants[0]: name the group by"),
        ("access_assignment", {"grants": [{"to": "owner", "when": ["\\"]}]}, "grants[0].when[0]:"),
        ("redirect", {"rules": [{"patterns": ["*"]}]}, "rules[0]: must say where to"),
        ("redirect", {"rules": [{"sub_path": "../x"}]}, "rules[0].sub_path: it must consist of folder names"),
        ("redirect", {"rules": [{"sub_path": "/x"}]}, "rules[0].sub_path: it must be relative"),
        ("redirect", {"rules": [{"sub_path": "a//b"}]}, "rules[0].sub_path: it must consist"),
        ("redirect", {"rules": [{"sub_path": "a\\b"}]}, "rules[0].sub_path: it holds a backslash"),
        ("redirect", {"rules": [{"sub_path": "a\nb"}]}, "rules[0].sub_path: it holds a character"),
        ("redirect", {"rules": [{"sub_path": "a/.StreamWeave"}]}, "rules[0].sub_path: .streamweave is reserved"),
        ("redirect", {"rules": [{"storage": ""}]}, "rules[0].storage: '' should be non-empty"),
    ],
)
def test_a_bad_config_is_refused_with_the_field_and_the_reason(builtin: str, config: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_config("builtin", builtin, config)
    assert message in caught.value.message_dict["config"][0]


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        validate_config("builtin", "file_filter", {"min_size_bytes": -1, "max_size_bytes": -1})
    assert len(caught.value.message_dict["config"]) == 2


def test_scripts_and_webhooks_take_any_object() -> None:
    for implementation in ("python_script", "http_webhook"):
        validate_config(implementation, None, {"anything": [1, {"at": "all"}]})
        validate_config(implementation, None, None)
        with pytest.raises(ValidationError):
            validate_config(implementation, None, ["no object"])


def test_a_builtin_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValidationError, match=r"“file_flter” is no builtin; use one of file_filter"):
        validate_config("builtin", "file_flter", {})
