"""Users, groups, projects and memberships: what the database holds them to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth import authenticate
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client

from access.models import (
    EffectiveMember,
    Group,
    GroupMembership,
    MembershipChangedError,
    Project,
    ProjectMembership,
    User,
)
from access.policy import is_admin, may_log_in

PASSWORD = "correct-horse-9"

pytestmark = pytest.mark.django_db


def test_an_address_is_kept_as_given_with_its_domain_in_lower_case() -> None:
    assert User.objects.create_user("Ann.Lee@Example.ORG", PASSWORD).email == "Ann.Lee@example.org"


def test_letter_case_makes_no_second_address() -> None:
    User.objects.create_user("Ann@example.org", PASSWORD)
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("ann@example.org", PASSWORD)
    with pytest.raises(ValidationError, match="another user already has this address"):
        User(email="ANN@EXAMPLE.ORG", password="x").full_clean()


def test_a_user_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="email"):
        User.objects.create_user("", PASSWORD)


@pytest.mark.parametrize("key", ["username", "email"])
def test_log_in_is_by_address_whatever_its_case(key: str) -> None:
    user = User.objects.create_user("Ann@example.org", PASSWORD)
    assert authenticate(None, **{key: "aNN@EXAMPLE.org"}, password=PASSWORD) == user
    assert authenticate(None, **{key: "ann@example.org"}, password="wrong") is None
    assert authenticate(None, **{key: "bob@example.org"}, password=PASSWORD) is None
    assert authenticate(None, **{key: ""}, password=PASSWORD) is None


def test_a_user_without_a_password_cannot_log_in() -> None:
    User.objects.create_user("ann@example.org")
    assert authenticate(username="ann@example.org", password="") is None


def test_the_role_makes_the_superuser_and_nothing_else_does(make_user: Callable[..., User]) -> None:
    admin, user = make_user("admin", role="admin"), make_user("ann")
    assert (admin.is_superuser, admin.is_staff, is_admin(admin)) == (True, True, True)
    assert (user.is_superuser, user.is_staff, is_admin(user)) == (False, False, False)
    user.role = "admin"
    user.save()
    assert user.is_superuser
    User.objects.filter(pk=user.pk).update(role="user")
    user.refresh_from_db()
    assert not user.is_superuser
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE access_user SET is_superuser = true")


def test_an_unknown_role_is_refused(make_user: Callable[..., User]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make_user("ann", role="owner")


@pytest.mark.parametrize("shut_out", [User.soft_delete, lambda user: User.objects.update(is_active=False)])
def test_an_administrator_who_is_shut_out_is_no_superuser(
    make_user: Callable[..., User], shut_out: Callable[[User], object]
) -> None:
    admin = make_user("admin", role="admin")
    shut_out(admin)
    admin.refresh_from_db()
    assert (admin.is_superuser, admin.is_staff, is_admin(admin), may_log_in(admin)) == (False, False, False, False)


def test_who_is_deleted_cannot_log_in_until_restored(client: Client) -> None:
    user = User.objects.create_user("ann@example.org", PASSWORD)
    client.force_login(user, backend="access.backends.EmailBackend")
    user.soft_delete()
    assert authenticate(username="ann@example.org", password=PASSWORD) is None
    assert not client.get("/admin/login/").wsgi_request.user.is_authenticated
    user.restore()
    assert authenticate(username="ann@example.org", password=PASSWORD) == user
    assert user.is_active


def test_who_is_deactivated_cannot_log_in() -> None:
    User.objects.create_user("ann@example.org", PASSWORD, is_active=False)
    assert authenticate(username="ann@example.org", password=PASSWORD) is None


def test_users_are_deleted_and_restored_in_bulk(make_user: Callable[..., User]) -> None:
    make_user("ann"), make_user("bob")
    assert User.objects.soft_delete() == 2
    assert not User.objects.alive().exists()
    assert User.objects.restore() == 2
    assert User.objects.alive().count() == 2


@pytest.mark.parametrize("kind", [Group, Project])
def test_names_are_unique_among_those_not_deleted(kind: type[Group] | type[Project]) -> None:
    first = kind.objects.create(name="Proteomics Core")
    with pytest.raises(IntegrityError), transaction.atomic():
        kind.objects.create(name="proteomics core")
    first.soft_delete()
    kind.objects.create(name="proteomics core")
    with pytest.raises(ValidationError, match="already called so"):
        first.restore()
    first.refresh_from_db()
    assert first.deleted_at is not None


@pytest.mark.parametrize("kind", [Group, Project])
def test_an_empty_name_is_refused_and_an_empty_description_is_null(kind: type[Group] | type[Project]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        kind.objects.create(name="")
    row = kind(name="  NMR  ", description="")
    row.clean()
    assert (row.name, row.description) == ("NMR", None)


def test_each_group_and_project_owns_an_auth_group_and_takes_it_along() -> None:
    group, project = Group.objects.create(name="A"), Project.objects.create(name="A")
    assert group.auth_group.name == f"group:{group.pk}"
    assert project.auth_group.name == f"project:{project.pk}"
    owned = type(group.auth_group).objects
    group.delete()
    Project.objects.all().delete()
    assert not owned.exists()


def test_nobody_is_twice_in_a_group_or_project(make_user: Callable[..., User]) -> None:
    user, group, project = make_user("ann"), Group.objects.create(name="A"), Project.objects.create(name="A")
    for row in (
        lambda: GroupMembership(group=group, user=user),
        lambda: ProjectMembership(project=project, user=user),
        lambda: ProjectMembership(project=project, group=group),
    ):
        row().save()
        with pytest.raises(IntegrityError), transaction.atomic():
            row().save()


def test_a_projects_member_is_either_a_user_or_a_group(make_user: Callable[..., User]) -> None:
    user, group, project = make_user("ann"), Group.objects.create(name="A"), Project.objects.create(name="A")
    for who in ({}, {"user": user, "group": group}):
        with pytest.raises(IntegrityError), transaction.atomic():
            ProjectMembership.objects.create(project=project, **who)


def test_a_membership_is_never_changed(make_user: Callable[..., User]) -> None:
    row = GroupMembership.objects.create(group=Group.objects.create(name="A"), user=make_user("ann"))
    row.user = make_user("bob")
    with pytest.raises(MembershipChangedError):
        row.save()
    with pytest.raises(MembershipChangedError):
        GroupMembership.objects.update(user=row.user)
    assert list(EffectiveMember.objects.values_list("user__email", flat=True)) == ["ann@example.org"]
