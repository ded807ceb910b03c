"""Granting and taking back the sight of files, and answering who sees what.

Everything works on sets of files and costs a number of queries that depends neither on the number of files nor on that
of grantees. Hand over batches of some hundreds.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AnonymousUser, Permission
from django.db import models, transaction

from access import grantees, policy
from access.audit import record
from access.grantees import Grantee, GranteeType, Reference
from access.models import FileGroupObjectPermission, FileUserObjectPermission, Source, User

File = models.Model | uuid.UUID
"""A file record or its id."""


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant that is wanted: `grantee` is an id, a user's e-mail, or a group's or project's name."""

    file_id: uuid.UUID
    grantee_type: str
    grantee: Reference


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many grants are new, and which were refused with the reason. What was granted before is neither."""

    granted: int
    refused: list[tuple[GrantRow, str]]


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as it stands. `name` is the user's e-mail or the group's or project's name."""

    id: uuid.UUID
    file_id: uuid.UUID
    grantee_type: GranteeType
    grantee_id: uuid.UUID
    name: str
    granted_at: datetime
    granted_by_id: uuid.UUID | None
    source: str


class UnknownGranteeError(ValueError):
    """There is no such user, group or project; the message says which and what to do."""


def visible_file_ids(user: User | AnonymousUser) -> models.QuerySet[Any, Any] | None:
    """The ids of the files that `user` may see, as a subquery for `pk__in`; None for an administrator, who sees all.

    It is the union of his own grants and those of his groups and projects. (An `OR` of two conditions instead makes
    PostgreSQL walk the whole table of files.) The owner has a grant like others.
    """
    if policy.is_admin(user):
        return None
    own, shared = FileUserObjectPermission.rows, FileGroupObjectPermission.rows
    if not policy.may_log_in(user):
        return own.none().values("content_object_id")
    permission = _view_permission().values("pk")[:1]
    circles = User.groups.through.objects.filter(user=user.pk).values("group_id")
    to_user = own.filter(user=user.pk, permission=permission).order_by().values("content_object_id")
    to_circles = shared.filter(group__in=circles, permission=permission).order_by().values("content_object_id")
    return to_user.union(to_circles, all=True)


def grant(
    files: Iterable[File],
    *,
    grantee_type: str,
    grantee_id: Reference,
    by: User | None = None,
    source: str = Source.MANUAL,
) -> int:
    """Lets one user, group or project see `files`; returns how many of them he did not see by such a grant before.

    Raises UnknownGranteeError.
    """
    outcome = grant_many([GrantRow(pk, grantee_type, grantee_id) for pk in _ids(files)], by=by, source=source)
    for _, reason in outcome.refused:
        raise UnknownGranteeError(reason)
    return outcome.granted


def grant_many(rows: Iterable[GrantRow], *, by: User | None = None, source: str = Source.MANUAL) -> Outcome:
    """Adds all of `rows` that do not stand yet, in one transaction. A second call with the same rows does nothing.

    An unknown grantee is reported, and the others are granted nonetheless. Raises IntegrityError, at the latest when
    the transaction ends, if there is no such file.
    """
    rows = list(rows)
    found = grantees.find((row.grantee_type, row.grantee) for row in rows)
    refused: list[tuple[GrantRow, str]] = []
    wanted: dict[bool, dict[tuple[uuid.UUID, Any], Grantee]] = {True: {}, False: {}}
    for row in rows:
        grantee = found[row.grantee_type, row.grantee]
        if isinstance(grantee, str):
            refused.append((row, grantee))
        else:
            wanted[grantee.grantee_type == GranteeType.USER][row.file_id, grantee.key] = grantee
    with transaction.atomic():
        added = [
            *_add(FileUserObjectPermission, "user_id", wanted[True], by=by, source=source),
            *_add(FileGroupObjectPermission, "group_id", wanted[False], by=by, source=source),
        ]
        _record("grant.added", added, by=by, source=source)
    return Outcome(len(added), refused)


def grant_to_owners(owners: Mapping[uuid.UUID, uuid.UUID | None], *, by: User | None = None) -> Outcome:
    """Gives each file's owner his grant, and takes it from the former owner.

    `owners`: for each file its owner as it is from now on, None for nobody. Call it in the transaction that sets
    the owner. A former owner keeps what was granted to him otherwise.
    """
    with transaction.atomic():
        former = [
            row for row in grants_on(owners) if row.source == Source.OWNER and row.grantee_id != owners[row.file_id]
        ]
        _take_back(former, by=by)
        rows = [GrantRow(pk, GranteeType.USER, owner) for pk, owner in owners.items() if owner is not None]
        return grant_many(rows, by=by, source=Source.OWNER)


def grants_on(files: Iterable[File]) -> list[Grant]:
    """The grants on `files`, oldest first, whether or not their holders may log in; three queries."""
    return _standing(content_object__in=_ids(files))


def revoke(files: Iterable[File], *, grantee_type: str, grantee_id: uuid.UUID, by: User | None = None) -> int:
    """Takes the grants on `files` back from one user, group or project; returns how many there were."""
    with transaction.atomic():
        rows = [row for row in grants_on(files) if (row.grantee_type, row.grantee_id) == (grantee_type, grantee_id)]
        return _take_back(rows, by=by)


def revoke_all(files: Iterable[File], *, by: User | None = None) -> int:
    """Takes back every grant on `files`, the owner's too; returns how many there were."""
    with transaction.atomic():
        return _take_back(grants_on(files), by=by)


def revoke_grants(grant_ids: Iterable[uuid.UUID], *, by: User | None = None) -> int:
    """Takes back the grants with these ids; returns how many there were."""
    with transaction.atomic():
        return _take_back(_standing(pk__in=list(grant_ids)), by=by)


def _view_permission() -> models.QuerySet[Permission]:
    return Permission.objects.filter(content_type__app_label=policy.FILE_APP, codename=policy.VIEW_FILE).order_by()


def _ids(files: Iterable[File]) -> list[Any]:
    return [file.pk if isinstance(file, models.Model) else file for file in files]


def _add(
    model: type[FileUserObjectPermission] | type[FileGroupObjectPermission],
    holder: str,
    wanted: Mapping[tuple[uuid.UUID, Any], Grantee],
    *,
    by: User | None,
    source: str,
) -> list[tuple[uuid.UUID, Grantee]]:
    """Writes the rows of `wanted`, (file id, key) to grantee, that do not stand yet, and returns them."""
    if not wanted:
        return []
    permission = _view_permission().get()
    standing = set(
        model.rows.filter(permission=permission, content_object__in={pk for pk, _ in wanted})
        .order_by()
        .values_list("content_object_id", holder)
    )
    missing = sorted(wanted.keys() - standing)  # in one order everywhere, so that simultaneous batches do not deadlock
    common = {"permission": permission, "granted_by": by, "source": source}
    model.rows.bulk_create(
        [model(content_object_id=pk, **{holder: key}, **common) for pk, key in missing], ignore_conflicts=True
    )
    return [(pk, wanted[pk, key]) for pk, key in missing]


def _standing(**which: Any) -> list[Grant]:
    facts = ("id", "content_object_id", "granted_at", "granted_by_id", "source")
    users = FileUserObjectPermission.rows.filter(**which).order_by()
    found = [
        Grant(pk, file_id, GranteeType.USER, user_id, email, at, by_id, source)
        for pk, file_id, at, by_id, source, user_id, email in users.values_list(*facts, "user_id", "user__email")
    ]
    groups = FileGroupObjectPermission.rows.filter(**which).order_by()
    for owner, grantee_type in (("access_group", GranteeType.GROUP), ("access_project", GranteeType.PROJECT)):
        rows = groups.filter(**{f"group__{owner}__isnull": False})
        found += [
            Grant(pk, file_id, grantee_type, grantee_id, name, at, by_id, source)
            for pk, file_id, at, by_id, source, grantee_id, name in rows.values_list(
                *facts, f"group__{owner}__id", f"group__{owner}__name"
            )
        ]
    return sorted(found, key=lambda row: (row.granted_at, row.id))


def _take_back(rows: Iterable[Grant], *, by: User | None) -> int:
    rows = list(rows)
    ids = [row.id for row in rows]
    FileUserObjectPermission.rows.filter(pk__in=ids).delete()
    FileGroupObjectPermission.rows.filter(pk__in=ids).delete()
    _record("grant.removed", [(row.file_id, row) for row in rows], by=by)
    return len(rows)


def _record(action: str, rows: Iterable[tuple[uuid.UUID, Grantee | Grant]], *, by: User | None, **more: Any) -> None:
    """One event for a batch: for each grantee the files."""
    files: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file_id, grantee in rows:
        grantee_id = grantee.id if isinstance(grantee, Grantee) else grantee.grantee_id
        files[grantee.grantee_type, str(grantee_id)].append(str(file_id))
    if files:
        listed = [{"grantee_type": kind, "grantee_id": pk, "file_ids": ids} for (kind, pk), ids in files.items()]
        file_model = FileUserObjectPermission._meta.get_field("content_object").related_model
        record(action, by=by, on=file_model, detail={"grants": listed, **more})
