"""What hooks answer. They return decisions and references only; harvest checks them and carries them out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class HookError(Exception):
    """A hook could not decide. The message says to a person why, and what to do where that is known."""


class Verdict(enum.StrEnum):
    ACCEPT = "accept"
    SKIP = "skip"
    HOLD = "hold"
    """Not now: ask again later. What a failing hook amounts to, so that it never lets a file through."""


@dataclass(frozen=True, slots=True)
class BeforeTransfer:
    """What is to become of a file before it is carried.

    `reason` says why it is skipped or held, `hook_name` which hook said so (for an accepted file: which redirected it
    last, else ""). `storage` (id or name of a storage location) and `sub_path` (relative, by `sub_paths.why_not`
    harmless) say where to put it instead; None leaves the place as it is.
    """

    verdict: Verdict = Verdict.ACCEPT
    reason: str = ""
    hook_name: str = ""
    storage: str | None = None
    sub_path: str | None = None


GRANTEE_TYPES = ("owner", "user", "group", "project")


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """Somebody is to see a file. `grantee` is an id, an e-mail address or a name, and "" where the type is owner."""

    grantee_type: str
    grantee: str = ""


@dataclass(frozen=True, slots=True)
class AfterTransfer:
    """What hooks found out about a transferred file.

    `metadata` is what they found in this call, without what was known before; of two that name the same key, the later
    hook wins. `problems` says which hooks failed for this file, and why: the file is fine, the hooks are to be asked
    again later, and what the others found is here already.
    """

    metadata: dict[str, Any] = field(default_factory=dict)
    grants: tuple[GrantRequest, ...] = ()
    problems: tuple[str, ...] = ()
