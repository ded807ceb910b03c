"""Granting and taking back the sight of files.

A grant covers a file, or an instrument: then all its files, those to come as well. Everything works on sets and costs a
number of queries that depends neither on the number of files nor on that of grantees. Hand over batches of some
hundreds. Who sees what is answered in `access.sight`.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.contrib.auth.models import Permission
from django.db import models, transaction
from django.utils import timezone

from access import grantees, policy
from access.audit import record
from access.grantees import Grantee, GranteeType, Reference
from access.models import FileGroupObjectPermission, FileUserObjectPermission, Source, User
from streamweave.lib import bulk

File = models.Model | uuid.UUID
"""A file record or its id."""
Instrument = models.Model | uuid.UUID
"""An instrument or its id."""
GrantModel = type[FileUserObjectPermission] | type[FileGroupObjectPermission]
FILE, INSTRUMENT = "content_object", "instrument"
"""What a grant may cover: the column of its row."""


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant that is wanted: `grantee` is an id, a user's e-mail, or a group's or project's name."""

    file_id: uuid.UUID
    grantee_type: str
    grantee: Reference
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many grants are new or last longer now, and which were refused with the reason. What stood is neither."""

    granted: int
    refused: list[tuple[GrantRow, str]]


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant on a file as it stands, expired or not. `name` is the user's e-mail or the group's or project's name."""

    id: uuid.UUID
    file_id: uuid.UUID
    grantee_type: GranteeType
    grantee_id: uuid.UUID
    name: str
    granted_at: datetime
    granted_by_id: uuid.UUID | None
    source: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class InstrumentGrant:
    """The same of a grant on all files of an instrument."""

    id: uuid.UUID
    instrument_id: uuid.UUID
    grantee_type: GranteeType
    grantee_id: uuid.UUID
    name: str
    granted_at: datetime
    granted_by_id: uuid.UUID | None
    source: str
    expires_at: datetime | None


Standing = TypeVar("Standing", Grant, InstrumentGrant)


class UnknownGranteeError(ValueError):
    """There is no such user, group or project; the message says which and what to do."""


def grant(
    files: Iterable[File],
    *,
    grantee_type: str,
    grantee_id: Reference,
    expires_at: datetime | None = None,
    by: User | None = None,
    source: str = Source.MANUAL,
) -> int:
    """Lets one user, group or project see `files`; returns how many of them he did not see, or not so long, by such a
    grant before. Raises UnknownGranteeError.
    """
    rows = [GrantRow(pk, grantee_type, grantee_id, expires_at) for pk in _ids(files)]
    outcome = grant_many(rows, by=by, source=source)
    for _, reason in outcome.refused:
        raise UnknownGranteeError(reason)
    return outcome.granted


def grant_many(rows: Iterable[GrantRow], *, by: User | None = None, source: str = Source.MANUAL) -> Outcome:
    """Adds all of `rows` that do not stand yet, in one transaction. A second call with the same rows does nothing.

    Where one stands that ends sooner, it is replaced; none is ever shortened so. A hook replaces none: what people have
    limited stays limited. An unknown grantee is reported, and the others are granted nonetheless. Raises
    IntegrityError, at the latest when the transaction ends, if there is no such file.
    """
    rows = list(rows)
    found = grantees.find((row.grantee_type, row.grantee) for row in rows)
    refused: list[tuple[GrantRow, str]] = []
    wanted = _Wanted(FILE, by=by, source=source)
    for row in rows:
        grantee = found[row.grantee_type, row.grantee]
        if isinstance(grantee, str):
            refused.append((row, grantee))
        else:
            wanted.add(row.file_id, grantee, row.expires_at)
    return Outcome(wanted.write(), refused)


def grant_to_owners(owners: Mapping[uuid.UUID, uuid.UUID | None], *, by: User | None = None) -> Outcome:
    """Gives each file's owner his grant, and takes it from the former owner.

    `owners`: for each file its owner as it is from now on, None for nobody. Call it in the transaction that sets
    the owner. A former owner keeps what was granted to him otherwise; a grant that would have ended became the
    owner's, and goes with that.
    """
    with transaction.atomic():
        former = [
            row for row in grants_on(owners) if row.source == Source.OWNER and row.grantee_id != owners[row.file_id]
        ]
        _take_back(former, by=by)
        rows = [GrantRow(pk, GranteeType.USER, owner) for pk, owner in owners.items() if owner is not None]
        return grant_many(rows, by=by, source=Source.OWNER)


def grant_instrument(
    instrument: Instrument,
    *,
    grantee_type: str,
    grantee_id: Reference,
    expires_at: datetime | None = None,
    by: User | None = None,
) -> bool:
    """Lets one user, group or project see all files of `instrument`, those to come as well; whether that, or its end,
    is new. Raises UnknownGranteeError; IntegrityError if there is no such instrument.
    """
    grantee = grantees.find([(grantee_type, grantee_id)])[grantee_type, grantee_id]
    if isinstance(grantee, str):
        raise UnknownGranteeError(grantee)
    wanted = _Wanted(INSTRUMENT, by=by, source=Source.MANUAL)
    for pk in _ids([instrument]):
        wanted.add(pk, grantee, expires_at)
    return wanted.write() > 0


def grants_on(files: Iterable[File]) -> list[Grant]:
    """The grants on `files` themselves, oldest first, expired or not, whether or not their holders may log in; three
    queries."""
    return _standing(Grant, FILE, content_object__in=_ids(files))


def grants_on_instruments(instruments: Iterable[Instrument]) -> list[InstrumentGrant]:
    """The same of the grants on whole instruments."""
    return _standing(InstrumentGrant, INSTRUMENT, instrument__in=_ids(instruments))


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
    """Takes back the grants with these ids, on files and on instruments; returns how many there were."""
    ids = list(grant_ids)
    with transaction.atomic():
        on_files = _standing(Grant, FILE, pk__in=ids)
        return _take_back([*on_files, *_standing(InstrumentGrant, INSTRUMENT, pk__in=ids)], by=by)


def view_permission() -> models.QuerySet[Permission]:
    return Permission.objects.filter(content_type__app_label=policy.FILE_APP, codename=policy.VIEW_FILE).order_by()


def _ids(rows: Iterable[models.Model | uuid.UUID]) -> list[Any]:
    return [row.pk if isinstance(row, models.Model) else row for row in rows]


def _lasts_longer(one: datetime | None, other: datetime | None) -> bool:
    return other is not None and (one is None or one > other)


class _Wanted:
    """Grants on files or on instruments (`covers`), collected and then written together."""

    def __init__(self, covers: str, *, by: User | None, source: str) -> None:
        self._covers, self._by, self._source = covers, by, source
        self._wanted: dict[bool, dict[tuple[uuid.UUID, Any], tuple[Grantee, datetime | None]]] = {True: {}, False: {}}

    def add(self, covered_id: uuid.UUID, grantee: Grantee, expires_at: datetime | None) -> None:
        of_kind = self._wanted[grantee.grantee_type == GranteeType.USER]
        known = of_kind.get((covered_id, grantee.key))
        if known is None or _lasts_longer(expires_at, known[1]):
            of_kind[covered_id, grantee.key] = (grantee, expires_at)

    def write(self) -> int:
        """Adds what does not stand yet, replaces what ends sooner; returns how many."""
        with transaction.atomic():
            written = [
                *self._write(FileUserObjectPermission, "user_id", self._wanted[True]),
                *self._write(FileGroupObjectPermission, "group_id", self._wanted[False]),
            ]
            _record("grant.added", self._covers, written, by=self._by, source=self._source)
        return len(written)

    def _write(
        self,
        model: GrantModel,
        holder: str,
        wanted: Mapping[tuple[uuid.UUID, Any], tuple[Grantee, datetime | None]],
    ) -> list[tuple[uuid.UUID, Grantee, datetime | None]]:
        if not wanted:
            return []
        permission, column = view_permission().get(), f"{self._covers}_id"
        rows = model.rows.filter(permission=permission, **{f"{self._covers}__in": {pk for pk, _ in wanted}})
        standing = {
            (covered, key): (pk, expires_at)
            for pk, covered, key, expires_at in rows.order_by().values_list("pk", column, holder, "expires_at")
        }
        missing = sorted(wanted.keys() - standing.keys())  # in one order everywhere, lest simultaneous batches deadlock
        facts = {"granted_at": timezone.now(), "granted_by_id": self._by and self._by.pk, "source": self._source}
        told = {
            column: [pk for pk, _ in missing],
            holder: [key for _, key in missing],
            "expires_at": [wanted[pair][1] for pair in missing],
        }
        bulk.insert(model, told, ignore_conflicts=True, permission_id=permission.pk, **facts)
        ending = (
            []
            if self._source == Source.HOOK
            else [
                pair
                for pair in sorted(standing.keys() & wanted.keys())
                if _lasts_longer(wanted[pair][1], standing[pair][1])
            ]
        )
        by_end: dict[datetime | None, list[uuid.UUID]] = defaultdict(list)
        for pair in ending:
            by_end[wanted[pair][1]].append(standing[pair][0])
        for expires_at, pks in by_end.items():
            model.rows.filter(pk__in=pks).update(expires_at=expires_at, **facts)
        return [(pair[0], *wanted[pair]) for pair in (*missing, *ending)]


def _standing(kind: type[Standing], covers: str, **which: Any) -> list[Standing]:
    facts = ("granted_at", "granted_by_id", "source", "expires_at")
    which[f"{covers}__isnull"] = False
    users = FileUserObjectPermission.rows.filter(**which).order_by()
    found = [
        kind(pk, covered, GranteeType.USER, user_id, email, *rest)
        for pk, covered, user_id, email, *rest in users.values_list(
            "id", f"{covers}_id", "user_id", "user__email", *facts
        )
    ]
    groups = FileGroupObjectPermission.rows.filter(**which).order_by()
    for owner, grantee_type in (("access_group", GranteeType.GROUP), ("access_project", GranteeType.PROJECT)):
        rows = groups.filter(**{f"group__{owner}__isnull": False})
        found += [
            kind(pk, covered, grantee_type, grantee_id, name, *rest)
            for pk, covered, grantee_id, name, *rest in rows.values_list(
                "id", f"{covers}_id", f"group__{owner}__id", f"group__{owner}__name", *facts
            )
        ]
    return sorted(found, key=lambda row: (row.granted_at, row.id))


def _take_back(rows: Iterable[Grant | InstrumentGrant], *, by: User | None) -> int:
    rows = list(rows)
    ids = [row.id for row in rows]
    FileUserObjectPermission.rows.filter(pk__in=ids).delete()
    FileGroupObjectPermission.rows.filter(pk__in=ids).delete()
    files = [(row.file_id, row, None) for row in rows if isinstance(row, Grant)]
    instruments = [(row.instrument_id, row, None) for row in rows if isinstance(row, InstrumentGrant)]
    _record("grant.removed", FILE, files, by=by)
    _record("grant.removed", INSTRUMENT, instruments, by=by)
    return len(rows)


def _record(
    action: str,
    covers: str,
    rows: Iterable[tuple[uuid.UUID, Grantee | Grant | InstrumentGrant, datetime | None]],
    *,
    by: User | None,
    **more: Any,
) -> None:
    """One event for a batch: for each grantee, and end, what is covered."""
    covered: dict[tuple[str, str, datetime | None], list[str]] = defaultdict(list)
    for pk, grantee, expires_at in rows:
        grantee_id = grantee.id if isinstance(grantee, Grantee) else grantee.grantee_id
        covered[grantee.grantee_type, str(grantee_id), expires_at].append(str(pk))
    if covered:
        named = "file_ids" if covers == FILE else "instrument_ids"
        listed = [
            {"grantee_type": kind, "grantee_id": pk, named: ids} | ({"expires_at": end} if end else {})
            for (kind, pk, end), ids in covered.items()
        ]
        on = FileUserObjectPermission._meta.get_field(covers).related_model
        record(action, by=by, on=on, detail={"grants": listed, **more})
