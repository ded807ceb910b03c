"""Granting, taking back, and who sees what."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, transaction
from django.utils import timezone
from guardian.shortcuts import assign_perm, get_objects_for_user, remove_perm

from access.grants import (
    GrantRow,
    UnknownGranteeError,
    grant,
    grant_instrument,
    grant_many,
    grant_to_owners,
    grants_on,
    grants_on_instruments,
    revoke,
    revoke_all,
    revoke_grants,
)
from access.holders import holders
from access.members import add_members
from access.models import AuditEvent, FileGroupObjectPermission, FileUserObjectPermission, Group, Project, Source, User
from harvest.models import FileRecord

pytestmark = pytest.mark.django_db
MakeUser = Callable[..., User]
MakeFiles = Callable[[int], list[FileRecord]]
Limit = Callable[[int], AbstractContextManager[object]]


def seen(user: User) -> list[str]:
    return sorted(FileRecord.objects.visible_to(user).values_list("source_path", flat=True))


def test_a_file_is_private_until_it_is_granted(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, (first, *_) = make_user("ann"), make_files(2)
    assert seen(ann) == []
    assert not ann.has_perm("harvest.view_filerecord", first)
    assert grant([first], grantee_type="user", grantee_id=ann.pk) == 1
    assert seen(ann) == ["run/0.fid"]
    assert User.objects.get(pk=ann.pk).has_perm("harvest.view_filerecord", first)


@pytest.mark.parametrize("kind", ["group", "project"])
def test_members_see_what_their_group_or_project_was_granted(
    make_user: MakeUser, make_files: MakeFiles, kind: str
) -> None:
    ann, files = make_user("ann"), make_files(2)
    circle = Group.objects.create(name="Core") if kind == "group" else Project.objects.create(name="Core")
    grant(files[:1], grantee_type=kind, grantee_id=circle.pk)
    assert seen(ann) == []
    add_members(to=circle, members=[ann])
    assert seen(ann) == ["run/0.fid"]
    circle.soft_delete()
    assert seen(ann) == []


def test_a_member_of_a_group_sees_what_the_groups_project_was_granted(
    make_user: MakeUser, make_files: MakeFiles
) -> None:
    ann, files = make_user("ann"), make_files(1)
    group, project = Group.objects.create(name="Core"), Project.objects.create(name="Kinase")
    add_members(to=group, members=[ann])
    add_members(to=project, members=[group])
    grant(files, grantee_type="project", grantee_id=project.pk)
    assert seen(ann) == ["run/0.fid"]


def test_administrators_see_everything_and_who_may_not_log_in_nothing(
    make_user: MakeUser, make_files: MakeFiles, admin: User
) -> None:
    ann, bob, files = make_user("ann"), make_user("bob", is_active=False), make_files(2)
    grant(files, grantee_type="user", grantee_id=ann.pk)
    grant(files, grantee_type="user", grantee_id=bob.pk)
    assert len(seen(admin)) == 2
    ann.soft_delete()
    admin.soft_delete()
    for user in (*User.objects.all(), AnonymousUser()):
        assert not FileRecord.objects.visible_to(user).exists()
        assert not user.has_perm("harvest.view_filerecord", files[0])


def test_no_model_wide_permission_opens_the_files(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, files = make_user("ann"), make_files(1)
    assign_perm("harvest.view_filerecord", ann)
    group = Group.objects.create(name="Core")
    assign_perm("harvest.view_filerecord", group.auth_group)
    add_members(to=group, members=[ann])
    ann = User.objects.get(pk=ann.pk)
    assert not ann.has_perm("harvest.view_filerecord")
    assert not ann.has_perm("harvest.view_filerecord", files[0])
    assert not get_objects_for_user(ann, "harvest.view_filerecord").exists()


def test_another_permission_on_a_file_does_not_show_it(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, (file,) = make_user("ann"), make_files(1)
    assign_perm("harvest.change_filerecord", ann, file)
    assert seen(ann) == []


def test_what_guardian_assigns_and_removes_counts(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, (file,) = make_user("ann"), make_files(1)
    assign_perm("harvest.view_filerecord", ann, file)
    assert seen(ann) == ["run/0.fid"]
    assert [row.source for row in grants_on([file])] == [Source.MANUAL]
    remove_perm("harvest.view_filerecord", ann, file)
    assert seen(ann) == []


def test_grantees_are_found_by_id_address_and_name_whatever_the_case(
    make_user: MakeUser, make_files: MakeFiles
) -> None:
    ann, bob, (file,) = make_user("ann"), make_user("bob"), make_files(1)
    group, project = Group.objects.create(name="Proteomics Core"), Project.objects.create(name="Kinase Screen")
    outcome = grant_many(
        [
            GrantRow(file.pk, "user", ann.pk),
            GrantRow(file.pk, "user", " BOB@example.org"),
            GrantRow(file.pk, "user", str(bob.pk).upper()),
            GrantRow(file.pk, "group", "proteomics core"),
            GrantRow(file.pk, "project", str(project.pk)),
            GrantRow(file.pk, "project", "Kinase Screen"),
        ],
        source=Source.HOOK,
    )
    assert (outcome.granted, outcome.refused) == (4, [])
    assert {(row.grantee_type, row.grantee_id, row.name) for row in grants_on([file])} == {
        ("user", ann.pk, "ann@example.org"),
        ("user", bob.pk, "bob@example.org"),
        ("group", group.pk, "Proteomics Core"),
        ("project", project.pk, "Kinase Screen"),
    }


def test_unknown_grantees_are_reported_and_the_others_granted(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, (file,) = make_user("ann"), make_files(1)
    Group.objects.create(name="Gone").soft_delete()
    rows = [
        GrantRow(file.pk, "user", "nobody@example.org"),
        GrantRow(file.pk, "group", "Gone"),
        GrantRow(file.pk, "project", str(uuid.uuid4())),
        GrantRow(file.pk, "team", "Core"),
        GrantRow(file.pk, "group", ann.pk),
        GrantRow(file.pk, "user", "ann@example.org"),
    ]
    outcome = grant_many(rows)
    assert outcome.granted == 1
    assert [row for row, _ in outcome.refused] == rows[:-1]
    assert 'there is no user with the id or e-mail "nobody@example.org"' in outcome.refused[0][1]
    assert '"team" is not one of user, group, project' in outcome.refused[3][1]
    assert seen(ann) == ["run/0.fid"]
    with pytest.raises(UnknownGranteeError, match="Gone"):
        grant([file], grantee_type="group", grantee_id="Gone")


def test_granting_again_changes_nothing(make_user: MakeUser, make_files: MakeFiles, admin: User) -> None:
    ann, files = make_user("ann"), make_files(2)
    assert grant(files, grantee_type="user", grantee_id=ann.pk, by=admin) == 2
    before = list(FileUserObjectPermission.rows.values())
    assert grant(files, grantee_type="user", grantee_id=ann.pk, source=Source.HOOK) == 0
    assert list(FileUserObjectPermission.rows.values()) == before
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_grant_on_no_file_is_refused(make_user: MakeUser) -> None:
    ann = make_user("ann")
    with pytest.raises(IntegrityError):
        grant([uuid.uuid4()], grantee_type="user", grantee_id=ann.pk)
    assert not FileUserObjectPermission.rows.exists()
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("count", [1, 200])
def test_the_number_of_queries_does_not_depend_on_the_batch(
    make_user: MakeUser, make_files: MakeFiles, django_assert_max_num_queries: Limit, count: int
) -> None:
    files = make_files(count)
    names = [make_user(f"user{number}").email for number in range(min(count, 20))]
    Group.objects.create(name="Core"), Project.objects.create(name="Kinase")
    rows = [
        GrantRow(file.pk, kind, who)
        for number, file in enumerate(files)
        for kind, who in (("user", names[number % len(names)]), ("group", "Core"), ("project", "Kinase"))
    ]
    with django_assert_max_num_queries(16):
        assert grant_many(rows).granted == 3 * count
    with django_assert_max_num_queries(3):
        assert len(grants_on(files)) == 3 * count
    with django_assert_max_num_queries(10):
        assert revoke_all(files) == 3 * count


def test_visibility_costs_two_queries(
    make_user: MakeUser, make_files: MakeFiles, django_assert_max_num_queries: Limit
) -> None:
    ann = make_user("ann")
    grant(make_files(3), grantee_type="user", grantee_id=ann.pk)
    with django_assert_max_num_queries(2):
        assert len(FileRecord.objects.visible_to(ann)) == 3


def test_grants_are_taken_back(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, bob, files = make_user("ann"), make_user("bob"), make_files(3)
    group = Group.objects.create(name="Core")
    for who in (ann, bob):
        grant(files, grantee_type="user", grantee_id=who.pk)
    grant(files, grantee_type="group", grantee_id=group.pk)
    assert revoke(files[:2], grantee_type="user", grantee_id=ann.pk) == 2
    assert (seen(ann), len(seen(bob))) == (["run/2.fid"], 3)
    assert revoke_grants([row.id for row in grants_on(files[2:]) if row.name == "ann@example.org"]) == 1
    assert revoke_grants([uuid.uuid4()]) == 0
    assert seen(ann) == []
    assert revoke_all(files) == 6
    assert grants_on(files) == []


def test_grants_go_with_their_file(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, files = make_user("ann"), make_files(2)
    grant(files, grantee_type="user", grantee_id=ann.pk)
    files[0].delete()
    FileRecord.objects.all().delete()
    assert not FileUserObjectPermission.rows.exists()


def test_grants_of_a_deleted_group_are_kept_for_its_restoration(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, files = make_user("ann"), make_files(1)
    group = Group.objects.create(name="Core")
    add_members(to=group, members=[ann])
    grant(files, grantee_type="group", grantee_id=group.pk)
    group.soft_delete()
    group.restore()
    assert seen(ann) == ["run/0.fid"]


def test_the_owner_has_a_grant_which_the_next_owner_takes_over(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, bob, files = make_user("ann"), make_user("bob"), make_files(2)
    first, second = files
    grant([second], grantee_type="user", grantee_id=ann.pk)
    assert grant_to_owners({first.pk: ann.pk, second.pk: ann.pk}).granted == 1
    assert grant_to_owners({first.pk: ann.pk}).granted == 0
    assert seen(ann) == ["run/0.fid", "run/1.fid"]
    assert grant_to_owners({first.pk: bob.pk, second.pk: bob.pk}).granted == 2
    assert (seen(ann), seen(bob)) == (["run/1.fid"], ["run/0.fid", "run/1.fid"])
    grant_to_owners({first.pk: None})
    assert seen(bob) == ["run/1.fid"]


def test_grants_are_audited_by_batch(make_user: MakeUser, make_files: MakeFiles, admin: User) -> None:
    ann, files = make_user("ann"), make_files(2)
    grant(files, grantee_type="user", grantee_id=ann.pk, by=admin)
    revoke_all(files, by=admin)
    revoke_all(files, by=admin)
    removed, added = AuditEvent.objects.all()
    assert [removed.action, added.action] == ["grant.removed", "grant.added"]
    assert (added.actor, added.object_type, added.object_id) == (admin, "harvest.filerecord", None)
    for event in (removed, added):
        (listed,) = event.detail["grants"]
        assert (listed["grantee_type"], listed["grantee_id"]) == ("user", str(ann.pk))
        assert sorted(listed["file_ids"]) == sorted(str(file.pk) for file in files)


def test_holders_are_listed_with_every_reason(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, bob, cid, dan = (make_user(name) for name in ("ann", "bob", "cid", "dan"))
    (file,) = make_files(1)
    core, other = Group.objects.create(name="Core"), Group.objects.create(name="Other")
    kinase = Project.objects.create(name="Kinase")
    add_members(to=core, members=[ann, bob, dan])
    add_members(to=other, members=[cid])
    add_members(to=kinase, members=[core, bob])
    grant([file], grantee_type="group", grantee_id=core.pk)
    grant([file], grantee_type="project", grantee_id=kinase.pk)
    grant([file], grantee_type="user", grantee_id=ann.pk)
    grant_to_owners({file.pk: cid.pk})
    dan.soft_delete()
    assert [(holder.email[:3], sorted(holder.reasons)) for holder in holders(file)] == [
        ("ann", ["granted to the user", 'group "Core"', 'project "Kinase" through group "Core"']),
        ("bob", ['group "Core"', 'project "Kinase"', 'project "Kinase" through group "Core"']),
        ("cid", ["owner of the file"]),
    ]
    assert [holder.user_id for holder in holders(file.pk)] == [
        user.pk for user in (ann, bob, cid) if FileRecord.objects.visible_to(user).exists()
    ]
    core.soft_delete()
    assert [(holder.email[:3], holder.reasons) for holder in holders(file)] == [
        ("ann", ("granted to the user",)),
        ("bob", ('project "Kinase"',)),
        ("cid", ("owner of the file",)),
    ]


def test_a_grant_ends_with_its_time(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, group, files = make_user("ann"), Group.objects.create(name="Core"), make_files(2)
    add_members(to=group, members=[ann])
    soon = timezone.now() + timedelta(hours=1)
    grant(files[:1], grantee_type="user", grantee_id=ann.pk, expires_at=soon)
    grant(files[1:], grantee_type="group", grantee_id=group.pk, expires_at=soon)
    assert seen(ann) == ["run/0.fid", "run/1.fid"]
    for model in (FileUserObjectPermission, FileGroupObjectPermission):
        model.rows.update(expires_at=timezone.now())
    assert seen(ann) == []
    assert holders(files[0]) == holders(files[1]) == []
    fresh = User.objects.get(pk=ann.pk)
    assert not any(fresh.has_perm("harvest.view_filerecord", file) for file in files)
    assert not get_objects_for_user(fresh, "harvest.view_filerecord").exists()
    assert [row.expires_at is not None for row in grants_on(files)] == [True, True]


def test_granting_again_lengthens_and_never_shortens(make_user: MakeUser, make_files: MakeFiles, admin: User) -> None:
    ann, files = make_user("ann"), make_files(1)
    soon, later = timezone.now() + timedelta(hours=1), timezone.now() + timedelta(hours=2)
    for expires_at, granted, stands in ((soon, 1, soon), (later, 1, later), (soon, 0, later), (None, 1, None)):
        assert grant(files, grantee_type="user", grantee_id=ann.pk, expires_at=expires_at, by=admin) == granted
        (row,) = grants_on(files)
        assert row.expires_at == stands
    assert grant(files, grantee_type="user", grantee_id=ann.pk, expires_at=later) == 0


def test_a_hook_does_not_undo_what_a_person_has_limited(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, files = make_user("ann"), make_files(1)
    grant(files, grantee_type="user", grantee_id=ann.pk, expires_at=timezone.now() - timedelta(hours=1))
    assert grant(files, grantee_type="user", grantee_id=ann.pk, source=Source.HOOK) == 0
    assert seen(ann) == []


def test_an_owner_sees_his_file_though_a_grant_of_his_has_ended(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, files = make_user("ann"), make_files(1)
    grant(files, grantee_type="user", grantee_id=ann.pk, expires_at=timezone.now() - timedelta(hours=1))
    assert grant_to_owners({files[0].pk: ann.pk}).granted == 1
    assert seen(ann) == ["run/0.fid"]
    grant_to_owners({files[0].pk: None})
    assert seen(ann) == []


def test_a_grant_covers_either_a_file_or_an_instrument(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, (file,) = make_user("ann"), make_files(1)
    grant([file], grantee_type="user", grantee_id=ann.pk)
    for change in ({"content_object": None}, {"instrument": file.instrument}):
        with pytest.raises(IntegrityError), transaction.atomic():
            FileUserObjectPermission.rows.update(**change)


def test_taking_a_file_back_leaves_the_instruments_grant(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, (file, _) = make_user("ann"), make_files(2)
    assert grant_instrument(file.instrument, grantee_type="user", grantee_id=ann.email)
    assert not grant_instrument(file.instrument_id, grantee_type="user", grantee_id=ann.pk)
    grant([file], grantee_type="user", grantee_id=ann.pk)
    remove_perm("harvest.view_filerecord", ann, file)
    revoke_all([file])
    assert len(seen(ann)) == 2
    assert len(get_objects_for_user(ann, "harvest.view_filerecord")) == 2
    assert holders(file)[0].reasons == ("granted to the user for the whole instrument",)
    with pytest.raises(UnknownGranteeError):
        grant_instrument(file.instrument, grantee_type="group", grantee_id="Nobody")
    (row,) = grants_on_instruments([file.instrument])
    assert revoke_grants([row.id]) == 1
    assert seen(ann) == []


def test_the_backend_tells_permissions_by_their_codenames(make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, group, (file, other) = make_user("ann"), Group.objects.create(name="Core"), make_files(2)
    assign_perm("harvest.change_filerecord", ann, file)
    add_members(to=group, members=[ann])
    grant([file], grantee_type="group", grantee_id=group.pk)
    assert ann.get_all_permissions(file) == {"view_filerecord", "change_filerecord"}
    assert ann.get_group_permissions(file) == {"view_filerecord"}
    assert ann.get_all_permissions(other) == set()
    assert not ann.has_perm("access.view_filerecord", file)
    assert not ann.has_perm("harvest.view_instrument", file.instrument)
