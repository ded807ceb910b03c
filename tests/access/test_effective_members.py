"""Each Group's and each Project's `auth.Group` holds exactly its effective members, whatever changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import pytest
from django.db import connection

from access.members import CannotBeMemberError, add_members, remove_members
from access.models import (
    AuditEvent,
    EffectiveMember,
    Group,
    GroupMembership,
    Project,
    ProjectMembership,
    User,
    find_drift,
    sync_effective_members,
)

pytestmark = pytest.mark.django_db
MakeUser = Callable[..., User]


def effective(container: Group | Project) -> list[str]:
    emails = container.auth_group.user_set.order_by("email").values_list("email", flat=True)
    return [email.removesuffix("@example.org") for email in emails]


@pytest.fixture
def lab() -> tuple[Group, Project]:
    return Group.objects.create(name="Chemistry"), Project.objects.create(name="Kinase")


def test_members_join_and_leave(lab: tuple[Group, Project], make_user: MakeUser) -> None:
    group, project = lab
    ann, bob = make_user("ann"), make_user("bob")
    assert add_members(to=group, members=[ann, bob, ann]) == 2
    assert add_members(to=group, members=[bob]) == 0
    assert add_members(to=project, members=[group, ann]) == 2
    assert (effective(group), effective(project)) == (["ann", "bob"], ["ann", "bob"])
    assert remove_members(of=group, members=[ann, bob]) == 2
    assert (effective(group), effective(project)) == ([], ["ann"])
    assert remove_members(of=project, members=[group, ann, bob]) == 2
    assert effective(project) == []


def test_who_joins_a_group_joins_its_projects(lab: tuple[Group, Project], make_user: MakeUser) -> None:
    group, project = lab
    add_members(to=project, members=[group])
    add_members(to=group, members=[make_user("ann")])
    assert effective(project) == ["ann"]
    remove_members(of=project, members=[group])
    assert (effective(group), effective(project)) == (["ann"], [])


def test_a_deleted_group_or_project_has_no_members_until_restored(
    lab: tuple[Group, Project], make_user: MakeUser
) -> None:
    group, project = lab
    add_members(to=group, members=[make_user("ann")])
    add_members(to=project, members=[group, make_user("bob")])
    group.soft_delete()
    assert (effective(group), effective(project)) == ([], ["bob"])
    group.restore()
    assert (effective(group), effective(project)) == (["ann"], ["ann", "bob"])
    Project.objects.soft_delete()
    assert effective(project) == []
    Project.objects.restore()
    assert effective(project) == ["ann", "bob"]


@pytest.mark.parametrize(
    ("out", "back"),
    [
        (lambda ann: ann.soft_delete(), lambda ann: ann.restore()),
        (lambda ann: User.objects.soft_delete(), lambda ann: User.objects.restore()),
        (lambda ann: User.objects.update(is_active=False), lambda ann: User.objects.update(is_active=True)),
        (lambda ann: _save_active(ann, False), lambda ann: _save_active(ann, True)),
    ],
)
def test_who_is_shut_out_is_no_effective_member_until_let_in_again(
    lab: tuple[Group, Project],
    make_user: MakeUser,
    out: Callable[[User], object],
    back: Callable[[User], object],
) -> None:
    group, project = lab
    ann = make_user("ann")
    add_members(to=group, members=[ann])
    add_members(to=project, members=[group])
    out(ann)
    assert (effective(group), effective(project)) == ([], [])
    back(ann)
    assert (effective(group), effective(project)) == (["ann"], ["ann"])


def _save_active(user: User, active: bool) -> None:
    user.is_active = active
    user.save()


def test_changes_by_the_orm_in_bulk_are_followed(lab: tuple[Group, Project], make_user: MakeUser) -> None:
    group, project = lab
    users = [make_user(name) for name in ("ann", "bob", "cid")]
    ProjectMembership.objects.bulk_create([ProjectMembership(project=project, group=group)])
    GroupMembership.objects.bulk_create([GroupMembership(group=group, user=user) for user in users])
    assert effective(project) == ["ann", "bob", "cid"]
    GroupMembership.objects.filter(user__email__startswith="a").delete()
    group.memberships.filter(user=users[1]).delete()
    assert (effective(group), effective(project)) == (["cid"], ["cid"])
    Group.objects.all().delete()
    assert effective(project) == []


def test_a_deleted_row_of_a_user_leaves_nothing_behind(lab: tuple[Group, Project], make_user: MakeUser) -> None:
    group, project = lab
    ann = make_user("ann")
    add_members(to=group, members=[ann])
    add_members(to=project, members=[group])
    ann.delete()
    assert (effective(group), effective(project)) == ([], [])


def test_what_is_deleted_cannot_join_and_a_group_joins_no_group(
    lab: tuple[Group, Project], make_user: MakeUser
) -> None:
    group, project = lab
    ann, bob = make_user("ann"), make_user("bob")
    ann.soft_delete()
    with pytest.raises(CannotBeMemberError, match=r"ann@example\.org is deleted"):
        add_members(to=group, members=[bob, ann])
    with pytest.raises(CannotBeMemberError, match="users"):
        add_members(to=group, members=[Group.objects.create(name="Biology")])
    project.soft_delete()
    with pytest.raises(CannotBeMemberError, match="Kinase is deleted"):
        add_members(to=project, members=[bob])
    assert effective(group) == []


def test_joining_and_leaving_are_audited_once(lab: tuple[Group, Project], make_user: MakeUser, admin: User) -> None:
    group, _ = lab
    ann = make_user("ann")
    for _ in range(2):
        add_members(to=group, members=[ann], by=admin)
    for _ in range(2):
        remove_members(of=group, members=[ann], by=admin)
    removed, added = AuditEvent.objects.all()
    assert [removed.action, added.action] == ["member.removed", "member.added"]
    assert (added.actor, added.object_type, added.object_id) == (admin, "access.group", str(group.pk))
    assert added.detail["members"] == [{"member_type": "user", "member_id": str(ann.pk), "name": ann.email}]


@pytest.mark.parametrize("count", [1, 40])
def test_the_number_of_queries_does_not_depend_on_the_number_of_members(
    lab: tuple[Group, Project],
    make_user: MakeUser,
    count: int,
    django_assert_max_num_queries: Callable[[int], AbstractContextManager[object]],
) -> None:
    group, project = lab
    users = [make_user(f"user{number}") for number in range(count)]
    add_members(to=project, members=[group])
    with django_assert_max_num_queries(16):
        add_members(to=group, members=users)
    with django_assert_max_num_queries(16):
        remove_members(of=group, members=users)


def test_drift_is_found_and_repaired(lab: tuple[Group, Project], make_user: MakeUser) -> None:
    group, project = lab
    ann, bob = make_user("ann"), make_user("bob")
    add_members(to=group, members=[ann])
    add_members(to=project, members=[group])
    assert find_drift() == (set(), {})
    ann.groups.remove(group.auth_group)
    bob.groups.add(project.auth_group)
    missing, surplus = find_drift()
    assert missing == {(group.auth_group_id, ann.pk)}
    assert surplus.keys() == {(project.auth_group_id, bob.pk)}
    assert sync_effective_members() == 2
    assert find_drift() == (set(), {})
    assert (effective(group), effective(project)) == (["ann"], ["ann"])


def test_groups_of_others_are_left_alone(make_user: MakeUser) -> None:
    ann = make_user("ann")
    ann.groups.create(name="somebody else's")
    sync_effective_members()
    assert EffectiveMember.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has a single writer")
def test_simultaneous_changes_do_not_miss_each_other(make_user: MakeUser) -> None:
    for number in range(5):
        group, project = Group.objects.create(name=f"G{number}"), Project.objects.create(name=f"P{number}")
        users = [make_user(f"user{number}-{index}") for index in range(3)]
        jobs: list[tuple[Group | Project, User | Group]] = [*((group, user) for user in users), (project, group)]
        assert at_once([partial(add_members, to=to, members=[who]) for to, who in jobs]) == [1, 1, 1, 1]
        assert len(effective(project)) == 3
    assert find_drift() == (set(), {})


def at_once(calls: list[Callable[[], int]]) -> list[int]:
    """What the calls return, made at the same moment, each on a connection of its own."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], int]) -> int:
        start.wait()
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
