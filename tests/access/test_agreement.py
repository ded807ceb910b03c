"""`visible_to`, the lists, `user.has_perm` and guardian's `get_objects_for_user` agree with each other and with a plain
oracle, after any sequence of changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import transaction
from django.db.models import Q
from django.http import QueryDict
from django.utils import timezone
from guardian.shortcuts import get_objects_for_user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from access import sight
from access.grants import grant, grant_instrument, grant_to_owners, grants_on_instruments, revoke, revoke_grants
from access.holders import holders
from access.members import add_members, remove_members
from access.models import Group, Project, User, find_drift
from harvest.api.files import listing
from harvest.api.files.filters import FileConditions
from harvest.api.files.listing import FileListing
from harvest.models import FileRecord, Instrument

USERS, CIRCLES, FILES, INSTRUMENTS = 4, 2, 3, 2
ADMIN = 0
INSTRUMENT_OF = (0, 0, 1)
"""Of each file."""
ENDS: dict[str, datetime | None] = {
    "past": timezone.now() - timedelta(days=1),
    "soon": timezone.now() + timedelta(days=1),
    "later": timezone.now() + timedelta(days=2),
    "never": None,
}
LENGTHS = list(ENDS)
"""Each lasts longer than the one before."""

user, group, project = st.integers(0, USERS - 1), st.integers(0, CIRCLES - 1), st.integers(0, CIRCLES - 1)
grantee = st.one_of(
    st.tuples(st.just("user"), user), st.tuples(st.just("group"), group), st.tuples(st.just("project"), project)
)
member = st.one_of(
    st.tuples(st.tuples(st.just("group"), group), st.tuples(st.just("user"), user)),
    st.tuples(st.tuples(st.just("project"), project), st.tuples(st.just("user"), user)),
    st.tuples(st.tuples(st.just("project"), project), st.tuples(st.just("group"), group)),
)
file, end = st.integers(0, FILES - 1), st.sampled_from(LENGTHS)
covered = st.one_of(st.tuples(st.just("file"), file), st.tuples(st.just("instrument"), st.integers(0, INSTRUMENTS - 1)))
changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "join", "leave"]), member),
        st.tuples(st.just("grant"), st.tuples(grantee, covered, end)),
        st.tuples(st.just("hook"), st.tuples(grantee, file, end)),
        st.tuples(st.just("revoke"), st.tuples(grantee, covered)),
        st.tuples(st.sampled_from(["delete", "restore"]), grantee),
        st.tuples(st.sampled_from(["deactivate", "activate"]), user),
        st.tuples(st.just("own"), st.tuples(st.none() | user, file)),
    ),
    min_size=1,
    max_size=20,
)
Who = tuple[str, int]
Covered = tuple[str, int]


@dataclass
class Oracle:
    """The rules, said once more in the plainest way."""

    members: set[tuple[Who, Who]] = field(default_factory=set)
    grants: dict[tuple[Who, Covered], tuple[str, str]] = field(default_factory=dict)
    deleted: set[Who] = field(default_factory=set)
    inactive: set[int] = field(default_factory=set)

    def change(self, verb: str, what: Any) -> None:
        match verb, what:
            case "join", (circle, who):
                if not {circle, who} & self.deleted:
                    self.members.add(what)
            case "leave", _:
                self.members.discard(what)
            case "grant", (who, covers, end):
                self.grant(who, covers, "manual", end)
            case "hook", (who, file, end):
                if (who, ("file", file)) not in self.grants:
                    self.grant(who, ("file", file), "hook", end)
            case "revoke", _:
                self.grants.pop(what, None)
            case "delete", who:
                self.deleted.add(who)
            case "restore", who:
                self.deleted.discard(who)
            case (("deactivate" | "activate"), number):
                (self.inactive.add if verb == "deactivate" else self.inactive.discard)(number)
            case "own", (owner, file):
                self.own(owner, file)

    def own(self, owner: int | None, file: int) -> None:
        covers = ("file", file)
        for who, its in list(self.grants):
            if its == covers and self.grants[who, its][0] == "owner" and who != ("user", owner):
                del self.grants[who, its]
        if owner is not None:
            self.grant(("user", owner), covers, "owner", "never")

    def grant(self, who: Who, covers: Covered, source: str, end: str) -> None:
        standing = self.grants.get((who, covers))
        if who not in self.deleted and (standing is None or LENGTHS.index(end) > LENGTHS.index(standing[1])):
            self.grants[who, covers] = (source, end)

    def sees(self, number: int, file: int) -> bool:
        who = ("user", number)
        if number in self.inactive or who in self.deleted:
            return False
        return number == ADMIN or any(
            covers in (("file", file), ("instrument", INSTRUMENT_OF[file]))
            and end != "past"
            and self.stands_for(holder, who)
            for (holder, covers), (_, end) in self.grants.items()
        )

    def stands_for(self, holder: Who, who: Who) -> bool:
        if holder == who:
            return True
        return holder not in self.deleted and any(
            circle == holder and self.stands_for(inner, who) for circle, inner in self.members
        )


@dataclass
class Product:
    everyone: dict[Who, Any]
    files: list[FileRecord]
    instruments: list[Instrument]

    def change(self, verb: str, what: Any) -> None:
        match verb, what:
            case "join", (circle, who):
                to, one = self.everyone[circle], self.everyone[who]
                if to.deleted_at is None and one.deleted_at is None:
                    add_members(to=to, members=[one])
            case "leave", (circle, who):
                remove_members(of=self.everyone[circle], members=[self.everyone[who]])
            case "grant", (who, covers, end):
                self.grant(who, covers, "manual", end)
            case "hook", (who, file, end):
                self.grant(who, ("file", file), "hook", end)
            case "revoke", (who, (kind, number)):
                pk = self.everyone[who].pk
                if kind == "file":
                    revoke([self.files[number]], grantee_type=who[0], grantee_id=pk)
                else:
                    standing = grants_on_instruments([self.instruments[number]])
                    revoke_grants([row.id for row in standing if row.grantee_id == pk])
            case "delete", who:
                self.everyone[who].soft_delete()
            case "restore", who:
                self.everyone[who].restore()
            case (("deactivate" | "activate"), number):
                someone = self.everyone["user", number]
                someone.is_active = verb == "activate"
                someone.save()
            case "own", (owner, file):
                pk = None if owner is None else self.everyone["user", owner].pk
                grant_to_owners({self.files[file].pk: pk})

    def grant(self, who: Who, covers: Covered, source: str, end: str) -> None:
        someone, (kind, number) = self.everyone[who], covers
        if someone.deleted_at is not None:
            return
        facts: dict[str, Any] = {"grantee_type": who[0], "grantee_id": someone.pk, "expires_at": ENDS[end]}
        if kind == "file":
            grant([self.files[number]], source=source, **facts)
        else:
            grant_instrument(self.instruments[number], **facts)


@pytest.mark.django_db
@settings(
    max_examples=100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequence=changes, walks=st.booleans(), glances=st.booleans())
def test_every_way_of_asking_gives_the_same_answer(
    sequence: list[tuple[str, Any]],
    walks: bool,
    glances: bool,
    make_user: Callable[..., User],
    make_files: Callable[[int], list[FileRecord]],
) -> None:
    many = 0 if walks else sight.MANY_FILES
    some = 0 if glances else listing.SOME_FILES
    patched = mock.patch.object(sight, "MANY_FILES", many), mock.patch.object(listing, "SOME_FILES", some)
    with patched[0], patched[1], transaction.atomic():
        everyone: dict[Who, Any] = {
            ("user", number): make_user(f"user{number}", role="admin" if number == ADMIN else "user")
            for number in range(USERS)
        }
        for number in range(CIRCLES):
            everyone["group", number] = Group.objects.create(name=f"group {number}")
            everyone["project", number] = Project.objects.create(name=f"project {number}")
        files = make_files(FILES)
        other = Instrument.objects.create(name="MS", cifs_host="ms.example.org", cifs_share="data")
        FileRecord.objects.filter(pk=files[-1].pk).update(instrument=other)
        instruments = [files[0].instrument, other]
        product, oracle = Product(everyone, [FileRecord.objects.get(pk=row.pk) for row in files], instruments), Oracle()
        for verb, what in sequence:
            product.change(verb, what)
            oracle.change(verb, what)
        _compare(product, oracle)
        transaction.set_rollback(True)


def _compare(product: Product, oracle: Oracle) -> None:
    assert find_drift() == (set(), {})
    pks = [file.pk for file in product.files]
    listed = [{holder.user_id for holder in holders(pk)} for pk in pks]
    for number in range(USERS):
        someone = User.objects.get(pk=product.everyone["user", number].pk)
        expected = {file for file in range(FILES) if oracle.sees(number, file)}
        shown = {pks.index(pk) for pk in FileRecord.objects.visible_to(someone).values_list("pk", flat=True)}
        files = FileListing(someone, FileConditions.read(QueryDict()))
        pages = [{pks.index(row.pk) for row in files.page(Q(), ("pk",), count)} for count in (len(expected), FILES)]
        guardians = {pks.index(row.pk) for row in get_objects_for_user(someone, "harvest.view_filerecord")}
        some = FileRecord.objects.exclude(pk=pks[0])
        narrowed = {pks.index(row.pk) for row in get_objects_for_user(someone, "view_filerecord", klass=some)}
        permitted = {n for n, file in enumerate(product.files) if someone.has_perm("harvest.view_filerecord", file)}
        assert shown == expected
        assert pages == [expected, expected]
        assert guardians == expected
        assert narrowed == expected - {0}
        assert permitted == expected
        if not someone.is_superuser:
            assert {file for file in range(FILES) if someone.pk in listed[file]} == expected
