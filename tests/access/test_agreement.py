"""`visible_to`, `user.has_perm` and guardian's `get_objects_for_user` agree with each other and with a plain oracle,
after any sequence of changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import transaction
from guardian.shortcuts import get_objects_for_user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from access.grants import grant, grant_to_owners, revoke
from access.holders import holders
from access.members import add_members, remove_members
from access.models import Group, Project, User, find_drift
from harvest.models import FileRecord

USERS, CIRCLES, FILES = 4, 2, 3
ADMIN = 0

user, group, project = st.integers(0, USERS - 1), st.integers(0, CIRCLES - 1), st.integers(0, CIRCLES - 1)
grantee = st.one_of(
    st.tuples(st.just("user"), user), st.tuples(st.just("group"), group), st.tuples(st.just("project"), project)
)
member = st.one_of(
    st.tuples(st.tuples(st.just("group"), group), st.tuples(st.just("user"), user)),
    st.tuples(st.tuples(st.just("project"), project), st.tuples(st.just("user"), user)),
    st.tuples(st.tuples(st.just("project"), project), st.tuples(st.just("group"), group)),
)
changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "join", "leave"]), member),
        st.tuples(st.sampled_from(["grant", "grant", "revoke"]), st.tuples(grantee, st.integers(0, FILES - 1))),
        st.tuples(st.sampled_from(["delete", "restore"]), grantee),
        st.tuples(st.sampled_from(["deactivate", "activate"]), user),
        st.tuples(st.just("own"), st.tuples(st.none() | user, st.integers(0, FILES - 1))),
    ),
    min_size=1,
    max_size=20,
)
Who = tuple[str, int]


@dataclass
class Oracle:
    """The rules, said once more in the plainest way."""

    members: set[tuple[Who, Who]] = field(default_factory=set)
    grants: dict[tuple[Who, int], str] = field(default_factory=dict)
    deleted: set[Who] = field(default_factory=set)
    inactive: set[int] = field(default_factory=set)

    def change(self, verb: str, what: Any) -> None:
        match verb, what:
            case "join", (circle, who):
                if not {circle, who} & self.deleted:
                    self.members.add(what)
            case "leave", _:
                self.members.discard(what)
            case "grant", (who, _):
                if who not in self.deleted:
                    self.grants.setdefault(what, "manual")
            case "revoke", _:
                self.grants.pop(what, None)
            case "delete", who:
                self.deleted.add(who)
            case "restore", who:
                self.deleted.discard(who)
            case "deactivate", number:
                self.inactive.add(number)
            case "activate", number:
                self.inactive.discard(number)
            case "own", (owner, file):
                self.own(owner, file)

    def own(self, owner: int | None, file: int) -> None:
        for who, its in list(self.grants):
            if its == file and self.grants[who, its] == "owner" and who != ("user", owner):
                del self.grants[who, its]
        if owner is not None and ("user", owner) not in self.deleted:
            self.grants.setdefault((("user", owner), file), "owner")

    def sees(self, number: int, file: int) -> bool:
        who = ("user", number)
        if number in self.inactive or who in self.deleted:
            return False
        return number == ADMIN or any(its == file and self.stands_for(holder, who) for holder, its in self.grants)

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

    def change(self, verb: str, what: Any) -> None:
        match verb, what:
            case "join", (circle, who):
                to, one = self.everyone[circle], self.everyone[who]
                if to.deleted_at is None and one.deleted_at is None:
                    add_members(to=to, members=[one])
            case "leave", (circle, who):
                remove_members(of=self.everyone[circle], members=[self.everyone[who]])
            case "grant", (who, file):
                if self.everyone[who].deleted_at is None:
                    grant([self.files[file]], grantee_type=who[0], grantee_id=self.everyone[who].pk)
            case "revoke", (who, file):
                revoke([self.files[file]], grantee_type=who[0], grantee_id=self.everyone[who].pk)
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


@pytest.mark.django_db
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=changes)
def test_every_way_of_asking_gives_the_same_answer(
    sequence: list[tuple[str, Any]], make_user: Callable[..., User], make_files: Callable[[int], list[FileRecord]]
) -> None:
    with transaction.atomic():
        everyone: dict[Who, Any] = {
            ("user", number): make_user(f"user{number}", role="admin" if number == ADMIN else "user")
            for number in range(USERS)
        }
        for number in range(CIRCLES):
            everyone["group", number] = Group.objects.create(name=f"group {number}")
            everyone["project", number] = Project.objects.create(name=f"project {number}")
        product, oracle = Product(everyone, make_files(FILES)), Oracle()
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
        found: Any = get_objects_for_user(someone, "harvest.view_filerecord").values_list("pk", flat=True)
        guardians = {pks.index(pk) for pk in found}
        permitted = {n for n, file in enumerate(product.files) if someone.has_perm("harvest.view_filerecord", file)}
        assert shown == expected
        assert guardians == expected
        assert permitted == expected
        if not someone.is_superuser:
            assert {file for file in range(FILES) if someone.pk in listed[file]} == expected
