"""What was done, by whom, to what: a table to which rows are only ever added."""

from __future__ import annotations

import uuid
from typing import Any, NoReturn

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone


class AppendOnlyError(TypeError):
    """The audit log can be added to, and neither changed nor shortened."""

    def __init__(self) -> None:
        super().__init__("The audit log is append-only: its events are neither changed nor deleted.")


class AuditEventQuerySet(models.QuerySet[Any]):
    def update(self, **values: Any) -> NoReturn:
        raise AppendOnlyError

    def delete(self) -> NoReturn:
        raise AppendOnlyError


class AuditEvent(models.Model):
    """One thing that was done. `access.audit.record` writes it, in the transaction of the thing itself."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    at = models.DateTimeField(default=timezone.now, editable=False)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,  # an event outlives everything it tells of, its actor too
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="Null: the product itself.",
    )
    action = models.CharField(max_length=100, help_text="What was done, such as grant.added.")
    object_type = models.CharField(max_length=100, null=True, help_text="Model, such as access.group.")
    object_id = models.CharField(max_length=64, null=True, help_text="Null: several, which `detail` names.")
    detail = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    ip = models.GenericIPAddressField(null=True)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=["-at", "-id"], name="audit_newest"),
            models.Index(fields=["object_type", "object_id", "-at"], name="audit_of_object"),
            models.Index(fields=["actor", "-at"], name="audit_by_actor"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type or ''} {self.object_id or ''}".strip()

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError
