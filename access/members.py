"""Adding and removing members of groups and projects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models, transaction
from django.db.models import Q

from access.audit import record
from access.models import Group, GroupMembership, Project, ProjectMembership, User


class CannotBeMemberError(ValueError):
    """This one cannot join; the message says why."""


def add_members(*, to: Group | Project, members: Iterable[User | Group], by: User | None = None) -> int:
    """Adds users, and to a project also groups; returns how many were not members before.

    The number of queries does not depend on how many they are. Raises CannotBeMemberError, and then adds nobody, if
    `to` or one of `members` is deleted, or if a group shall join a group.
    """
    members = list(dict.fromkeys(members))
    _check(to, members)
    with transaction.atomic():
        known = {row.member_id for row in _memberships(to, members)}
        new = [one for one in members if one.pk not in known]
        if new:
            kind = GroupMembership if isinstance(to, Group) else ProjectMembership
            kind.objects.bulk_create([_membership(to, one) for one in new], ignore_conflicts=True)
            record("member.added", by=by, on=to, detail={"members": [_named(one) for one in new]})
    return len(new)


def remove_members(*, of: Group | Project, members: Iterable[User | Group], by: User | None = None) -> int:
    """Removes users and groups; returns how many were members. Who is none is passed over."""
    members = list(dict.fromkeys(members))
    with transaction.atomic():
        rows = _memberships(of, members)
        known = {row.member_id for row in rows}
        gone = [one for one in members if one.pk in known]
        if gone:
            rows.delete()
            record("member.removed", by=by, on=of, detail={"members": [_named(one) for one in gone]})
    return len(gone)


def _check(to: Group | Project, members: Iterable[User | Group]) -> None:
    for one in (to, *members):
        if one.deleted_at is not None:
            raise CannotBeMemberError(f"{one._meta.verbose_name} {one} is deleted. Restore it first.")
    if isinstance(to, Group) and any(isinstance(one, Group) for one in members):
        raise CannotBeMemberError("A group's members are users. Whole groups can be members of a project.")


def _memberships(of: Group | Project, members: Iterable[User | Group]) -> models.QuerySet[Any]:
    users = [one.pk for one in members if isinstance(one, User)]
    if isinstance(of, Group):
        return of.memberships.filter(user__in=users)
    groups = [one.pk for one in members if isinstance(one, Group)]
    return of.memberships.filter(Q(user__in=users) | Q(group__in=groups))


def _membership(to: Group | Project, member: User | Group) -> GroupMembership | ProjectMembership:
    who = {"user" if isinstance(member, User) else "group": member}
    return GroupMembership(group=to, **who) if isinstance(to, Group) else ProjectMembership(project=to, **who)


def _named(member: User | Group) -> dict[str, str]:
    return {"member_type": member._meta.model_name or "", "member_id": str(member.pk), "name": str(member)}
