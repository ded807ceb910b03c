"""Grants on whole folders, instruments, runs: on all the files of a queryset."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q

from access.grantees import GranteeType, find
from access.grants import UnknownGranteeError, grant, revoke
from access.models import FileGroupObjectPermission, FileUserObjectPermission, User

SET_FILES = 2000
"""So many files are granted at a time, each time by the same number of queries."""


@dataclass(frozen=True, slots=True)
class Change:
    """How many files were meant, and how many grants were (or, on a dry run, would be) added or taken back."""

    files: int
    changed: int
    dry_run: bool


def grant_in_sets(
    files: Any,
    *,
    grantee_type: str,
    grantee_id: uuid.UUID,
    expires_at: datetime | None = None,
    by: User,
    dry_run: bool = False,
) -> Change:
    """Lets one user, group or project see all of `files`, or none of them. Raises UnknownGranteeError."""
    who = find([(grantee_type, grantee_id)])[grantee_type, grantee_id]
    if isinstance(who, str):
        raise UnknownGranteeError(who)
    if dry_run:
        meant = files.order_by().count()
        as_long = Q(expires_at=None) | Q(expires_at__gte=expires_at) if expires_at else Q(expires_at=None)
        return Change(meant, meant - _standing(files, grantee_type, grantee_id).filter(as_long).count(), dry_run=True)

    def change(some: list[uuid.UUID]) -> int:
        return grant(some, grantee_type=grantee_type, grantee_id=grantee_id, expires_at=expires_at, by=by)

    return _each(files, change)


def revoke_in_sets(files: Any, *, grantee_type: str, grantee_id: uuid.UUID, by: User, dry_run: bool = False) -> Change:
    """Takes the grants on all of `files` back from one user, group or project."""
    if dry_run:
        standing = _standing(files, grantee_type, grantee_id)
        return Change(files.order_by().count(), standing.count(), dry_run=True)
    return _each(files, lambda some: revoke(some, grantee_type=grantee_type, grantee_id=grantee_id, by=by))


def _each(files: Any, change: Callable[[list[uuid.UUID]], int]) -> Change:
    """Does `change` to all the files in one transaction, a set at a time."""
    meant = changed = 0
    with transaction.atomic():
        for some in _sets(files):
            meant += len(some)
            changed += change(some)
    return Change(meant, changed, dry_run=False)


def _sets(files: Any) -> Iterator[list[uuid.UUID]]:
    """The ids of `files` in flat memory, by key: what was done to one set changes nothing about the next."""
    ordered = files.order_by("pk").values_list("pk", flat=True)
    some = list(ordered[:SET_FILES])
    while some:
        yield some
        some = list(ordered.filter(pk__gt=some[-1])[:SET_FILES])


def _standing(files: Any, grantee_type: str, grantee_id: uuid.UUID) -> Any:
    """The grants on `files` that this one holds already."""
    held = (
        FileUserObjectPermission.rows.filter(user=grantee_id)
        if grantee_type == GranteeType.USER
        else FileGroupObjectPermission.rows.filter(**{f"group__access_{grantee_type}": grantee_id})
    )
    return held.filter(content_object__in=files.order_by().values("pk")).order_by()
