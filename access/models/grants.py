"""Grants: who may see which file.

They are django-guardian's direct-foreign-key models, so that guardian's own questions find them and a deleted file
takes its grants along. A grant to a Group or Project is held by its `auth.Group`.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import models
from django.db.models import Q
from django.utils import timezone
from guardian.managers import GroupObjectPermissionManager, UserObjectPermissionManager
from guardian.models import GroupObjectPermissionBase, UserObjectPermissionBase


class Source(models.TextChoices):
    """How a grant came about. The first one stands: granting again what is already granted changes nothing."""

    MANUAL = "manual", "granted by a person"
    HOOK = "hook", "granted by a hook"
    OWNER = "owner", "granted to the file's owner"


class FileGrant(models.Model):
    """What the grants to users and to groups have in common."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # no index of its own: that of uniqueness, (holder, permission, file), answers "which files may this one see"
    permission = models.ForeignKey(Permission, on_delete=models.CASCADE, db_index=False)
    content_object = models.ForeignKey("harvest.FileRecord", on_delete=models.CASCADE, verbose_name="file")
    granted_at = models.DateTimeField(default=timezone.now, editable=False)
    granted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_index=False,
        related_name="+",
        help_text="Null: the product itself.",
    )
    source = models.CharField(max_length=20, choices=Source, default=Source.MANUAL)

    rows: ClassVar[models.Manager[Any]] = models.Manager()
    """All of them. `objects` is what guardian asks, and may hide some."""

    class Meta:
        abstract = True
        ordering = ("granted_at", "id")
        default_manager_name = "rows"


class UserGrantsInForce(UserObjectPermissionManager):
    """What guardian asks: a user who is deactivated or deleted holds nothing, until he is let in again."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().filter(user__is_active=True, user__deleted_at=None)


class FileUserObjectPermission(FileGrant, UserObjectPermissionBase):
    """This user may see this file."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False)

    objects: ClassVar[UserGrantsInForce] = UserGrantsInForce()

    class Meta(FileGrant.Meta, UserObjectPermissionBase.Meta):
        abstract = False
        verbose_name = "grant to a user"
        verbose_name_plural = "grants to users"
        constraints = [models.CheckConstraint(condition=Q(source__in=Source.values), name="user_grant_source_known")]

    def __str__(self) -> str:
        return f"{self.content_object_id} to user {self.user_id}"


class FileGroupObjectPermission(FileGrant, GroupObjectPermissionBase):
    """The effective members of this `auth.Group`, which a Group or a Project owns, may see this file."""

    group = models.ForeignKey("auth.Group", on_delete=models.CASCADE, db_index=False)

    objects: ClassVar[GroupObjectPermissionManager] = GroupObjectPermissionManager()

    class Meta(FileGrant.Meta, GroupObjectPermissionBase.Meta):
        abstract = False
        verbose_name = "grant to a group or project"
        verbose_name_plural = "grants to groups and projects"
        constraints = [models.CheckConstraint(condition=Q(source__in=Source.values), name="group_grant_source_known")]

    def __str__(self) -> str:
        return f"{self.content_object_id} to {self.group}"
