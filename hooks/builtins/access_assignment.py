"""access_assignment: who is to see a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hooks import grants
from hooks.builtins.base import ConfigError, GrantRule, globs
from hooks.decisions import GrantRequest
from hooks.facts import FileFacts
from hooks.patterns import PATTERNS_SCHEMA, Glob, first_match

MAX_NAMED = 20
"""How many grantees one value of the metadata may name."""


class AccessAssignment(GrantRule):
    """Every grant counts whose patterns match the file.

    Where a grant takes its grantee from the metadata and the file has none there, nobody is granted anything by it; a
    list there names several. A file without an owner has nobody to grant to as its owner.
    """

    config_schema = {
        "title": "Access assignment",
        "description": "Lets people see the files as soon as they are there.",
        "type": "object",
        "additionalProperties": False,
        "required": ["grants"],
        "properties": {
            "grants": {
                "title": "Grants",
                "type": "array",
                "minItems": 1,
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["to"],
                    "properties": {
                        **grants.GRANT_PROPERTIES,
                        "metadata_key": {
                            "title": "Metadata key",
                            "description": "Takes id, e-mail or name from this value of the metadata, which earlier"
                            " hooks found.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 200,
                        },
                        "when": {
                            **PATTERNS_SCHEMA,
                            "title": "Files",
                            "description": "Names like “*.raw” or paths like “kinase/**”; every file if absent.",
                        },
                    },
                },
            }
        },
    }

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._grants: list[tuple[tuple[Glob, ...], Mapping[str, Any]]] = []
        for index, grant in enumerate(config["grants"]):
            wrong = grants.why_not(grant, frozenset({"metadata_key"}))
            if wrong:
                raise ConfigError(f"grants[{index}]", wrong)
            self._grants.append((globs(grant, "when", f"grants[{index}]."), grant))

    def grants(self, file: FileFacts) -> Sequence[GrantRequest]:
        return [
            request
            for patterns, grant in self._grants
            if not patterns or first_match(patterns, file)
            for request in _requests(grant, file)
        ]


def _requests(grant: Mapping[str, Any], file: FileFacts) -> Iterator[GrantRequest]:
    if grant["to"] == "owner":
        if file.owner_id:
            yield GrantRequest("owner")
    elif "metadata_key" in grant:
        value = file.metadata.get(grant["metadata_key"])
        for name in (value if isinstance(value, list) else [value])[:MAX_NAMED]:
            if isinstance(name, str | int) and not isinstance(name, bool) and str(name).strip():
                yield GrantRequest(grant["to"], str(name).strip())
    else:
        yield grants.request(grant)
