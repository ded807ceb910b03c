"""Who is in which group and project. Memberships are added and removed, never changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, cast

from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from access.models.containers import Group, Project
from access.models.effective_members import one_at_a_time, owned_by, sync_effective_members
from access.models.users import User


class MembershipChangedError(TypeError):
    """A membership is removed and another added, never changed."""

    def __init__(self) -> None:
        super().__init__("A membership is not changed: remove it and add another.")


class MembershipQuerySet(models.QuerySet[Any]):
    def update(self, **values: Any) -> int:
        raise MembershipChangedError

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic():
            created = super().bulk_create(objs, *args, **kwargs)
            sync_effective_members(touched_by(created))
        return created

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            one_at_a_time()
            touched = touched_by(self)
            deleted = super().delete()
            sync_effective_members(touched)
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]  # Django's marks on functions
    delete.queryset_only = True  # type: ignore[attr-defined]  # the same


class Membership(models.Model):
    """What a GroupMembership and a ProjectMembership have in common. It is added and removed, never changed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ("created_at", "id")

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise MembershipChangedError
        with transaction.atomic():
            super().save(*args, **kwargs)
            sync_effective_members(touched_by([self]))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            touched = touched_by([self])
            deleted = super().delete(*args, **kwargs)
            sync_effective_members(touched)
        return deleted


class GroupMembership(Membership):
    """A user in a group."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="group_memberships")

    class Meta(Membership.Meta):
        constraints = [models.UniqueConstraint(fields=["group", "user"], name="group_membership_unique")]

    def __str__(self) -> str:
        return f"{self.user} in {self.group}"

    @property
    def container(self) -> Group:
        return self.group

    @property
    def member(self) -> User:
        return self.user

    @property
    def member_id(self) -> uuid.UUID:
        return self.user_id


class ProjectMembership(Membership):
    """A user, or a whole group, in a project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE, related_name="project_memberships")
    group = models.ForeignKey(
        Group, null=True, blank=True, on_delete=models.CASCADE, related_name="project_memberships"
    )

    class Meta(Membership.Meta):
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="project_membership_user_unique"),
            models.UniqueConstraint(fields=["project", "group"], name="project_membership_group_unique"),
            models.CheckConstraint(
                condition=Q(user__isnull=True) ^ Q(group__isnull=True),
                name="project_membership_user_xor_group",
                violation_error_message="user, group: a project's member is either a user or a group; give one.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group} in {self.project}"

    @property
    def container(self) -> Project:
        return self.project

    @property
    def member(self) -> User | Group:
        """Exactly one is there, as the database has it."""
        return self.user or cast(Group, self.group)

    @property
    def member_type(self) -> str:
        return "user" if self.user_id else "group"

    @property
    def member_id(self) -> uuid.UUID | None:
        """The user's id or the group's."""
        return self.user_id or self.group_id


def touched_by(memberships: Iterable[Membership]) -> set[int]:
    groups = {row.group_id for row in memberships if isinstance(row, GroupMembership)}
    projects = {row.project_id for row in memberships if isinstance(row, ProjectMembership)}
    return owned_by(groups=groups, projects=projects)
