"""Grants: who may see which file, and until when.

They are django-guardian's direct-foreign-key models, so that guardian's own questions find them and a deleted file
takes its grants along. A grant covers one file, or an instrument: then every file of it, those to come as well. A grant
to a Group or Project is held by its `auth.Group`.
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
    """How a grant came about."""

    MANUAL = "manual", "granted by a person"
    HOOK = "hook", "granted by a hook"
    OWNER = "owner", "granted to the file's owner"


def unexpired() -> Q:
    """Grants without an end, and those whose end has not come."""
    return Q(expires_at=None) | Q(expires_at__gt=timezone.now())


class FileGrant(models.Model):
    """What the grants to users and to groups have in common."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # no index of its own: that of uniqueness, (holder, permission, file), answers "which files may this one see"
    permission = models.ForeignKey(Permission, on_delete=models.CASCADE, db_index=False)
    content_object = models.ForeignKey(
        "harvest.FileRecord", null=True, blank=True, on_delete=models.CASCADE, verbose_name="file"
    )
    instrument = models.ForeignKey(
        "harvest.Instrument",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="All files of this instrument, present and future.",
    )
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
    expires_at = models.DateTimeField(null=True, blank=True, help_text="From then on it shows nothing. Null: no end.")

    rows: ClassVar[models.Manager[Any]] = models.Manager()
    """All of them. `objects` is what guardian asks, and hides those that are not in force."""

    class Meta:
        abstract = True
        ordering = ("granted_at", "id")
        default_manager_name = "rows"


def grant_constraints(holder: str) -> list[models.BaseConstraint]:
    return [
        models.CheckConstraint(condition=Q(source__in=Source.values), name=f"{holder}_grant_source_known"),
        models.CheckConstraint(
            condition=Q(content_object__isnull=True) ^ Q(instrument__isnull=True),
            name=f"{holder}_grant_file_xor_instrument",
        ),
        models.UniqueConstraint(
            fields=[holder, "permission", "instrument"],
            condition=Q(instrument__isnull=False),
            name=f"{holder}_grant_instrument_unique",
        ),
    ]


class GrantsAsked(models.QuerySet[Any]):
    """Grants as guardian's `get_objects_for_user` asks for them: a grant on an instrument answers with its files.

    Their ids come as a subquery of their own. One join over both kinds of grants would do as well, but PostgreSQL
    believes its result to be so large that it works it out anew for each file. (The same happens to whoever was
    granted instruments of more files than it can hash, 200,000 by default; `visible_to` does not mind.)
    """

    def filter(self, *args: Any, **kwargs: Any) -> GrantsAsked:
        # It narrows the grants to the files it was asked about, and then those files again; the first would leave
        # out the grants on instruments.
        kwargs.pop("content_object__pk__in", None)
        return super().filter(*args, **kwargs)

    def values_list(self, *fields: Any, **kwargs: Any) -> Any:
        if fields != ("obj_pk",):
            return super().values_list(*fields, **kwargs)
        instruments = set(self.filter(instrument__isnull=False).values_list("instrument_id", flat=True))
        on_files = self.filter(content_object__isnull=False).order_by()
        ids = super(GrantsAsked, on_files).values_list(*fields, **kwargs)
        if not instruments:
            return ids
        file_model = self.model._meta.get_field("content_object").related_model
        files = file_model._base_manager.filter(instrument__in=instruments).order_by()
        return ids.union(files.values_list("pk", flat=True), all=True)


class UserGrantsInForce(UserObjectPermissionManager.from_queryset(GrantsAsked)):  # type: ignore[misc]  # made here
    """Hides what has expired, and what is granted to users who are deactivated or deleted."""

    def get_queryset(self) -> GrantsAsked:
        return super().get_queryset().filter(unexpired(), user__is_active=True, user__deleted_at=None)


class GroupGrantsInForce(GroupObjectPermissionManager.from_queryset(GrantsAsked)):  # type: ignore[misc]  # made here
    """Hides what has expired. Whoever may not log in is no effective member of any group."""

    def get_queryset(self) -> GrantsAsked:
        return super().get_queryset().filter(unexpired())


class FileUserObjectPermission(FileGrant, UserObjectPermissionBase):
    """This user may see this file, or the files of this instrument."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False)

    objects: ClassVar[UserGrantsInForce] = UserGrantsInForce()

    class Meta(FileGrant.Meta, UserObjectPermissionBase.Meta):
        abstract = False
        verbose_name = "grant to a user"
        verbose_name_plural = "grants to users"
        constraints = grant_constraints("user")

    def __str__(self) -> str:
        return f"{self.content_object_id or self.instrument} to user {self.user_id}"


class FileGroupObjectPermission(FileGrant, GroupObjectPermissionBase):
    """The effective members of this `auth.Group`, which a Group or a Project owns, may see this file, or the files of
    this instrument."""

    group = models.ForeignKey("auth.Group", on_delete=models.CASCADE, db_index=False)

    objects: ClassVar[GroupGrantsInForce] = GroupGrantsInForce()

    class Meta(FileGrant.Meta, GroupObjectPermissionBase.Meta):
        abstract = False
        verbose_name = "grant to a group or project"
        verbose_name_plural = "grants to groups and projects"
        constraints = grant_constraints("group")

    def __str__(self) -> str:
        return f"{self.content_object_id or self.instrument} to {self.group}"
