"""How a config or an answer names those who are to see a file: `{"to": "user", "email": "chemist@example.com"}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hooks.decisions import GRANTEE_TYPES, GrantRequest

_TEXT = {"type": "string", "minLength": 1, "maxLength": 320}

GRANT_PROPERTIES: Mapping[str, Any] = {
    "to": {
        "title": "To",
        "description": "The owner of the file, a user, a group or a project.",
        "enum": list(GRANTEE_TYPES),
    },
    "id": {**_TEXT, "title": "Id", "description": "Of the user, group or project."},
    "email": {**_TEXT, "title": "E-mail", "description": "Of the user."},
    "name": {**_TEXT, "title": "Name", "description": "Of the group or project."},
}
"""JSON schema of what a grant may hold; `why_not` says what a schema cannot."""

_NAMED_BY = {
    "owner": frozenset[str](),
    "user": frozenset({"id", "email"}),
    "group": frozenset({"id", "name"}),
    "project": frozenset({"id", "name"}),
}


def why_not(grant: Mapping[str, Any], further: frozenset[str] = frozenset()) -> str | None:
    """Why it is not clear whom `grant` means, or None if it is.

    `further` are keys that may name a user, group or project besides id, e-mail and name.
    """
    to = grant["to"]
    allowed = _NAMED_BY[to] | (further if to != "owner" else frozenset())
    given = grant.keys() & (GRANT_PROPERTIES.keys() | further) - {"to"}
    if given - allowed:
        return f"the {to} cannot be named by {' and '.join(sorted(given - allowed))}"
    if allowed and len(given) != 1:
        return f"name the {to} by exactly one of {', '.join(sorted(allowed))}"
    return None


def request(grant: Mapping[str, Any]) -> GrantRequest:
    """The request that a grant stands for, of which `why_not` said nothing."""
    return GrantRequest(grant["to"], next((grant[key] for key in ("id", "email", "name") if key in grant), ""))
