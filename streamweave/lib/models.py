"""What all our models share: UUID keys, the two times, narrow writes that move `updated_at`, soft deletion."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone


class TimestampedQuerySet(models.QuerySet[Any]):
    def update(self, **values: Any) -> int:
        """Like Django's, and moves `updated_at` unless it is given."""
        values.setdefault("updated_at", timezone.now())
        return super().update(**values)


class TimestampedModel(models.Model):
    """UUID key, `created_at`, `updated_at`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[Any] = TimestampedQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        if update_fields is not None:
            update_fields = {*update_fields, "updated_at"}
        super().save(*args, update_fields=update_fields, **kwargs)


class SoftDeletedQuerySet(TimestampedQuerySet):
    def alive(self) -> Self:
        """Those that are not deleted."""
        return self.filter(deleted_at=None)

    def soft_delete(self) -> int:
        return self.alive().update(deleted_at=timezone.now())

    def restore(self) -> int:
        return self.exclude(deleted_at=None).update(deleted_at=None)


class SoftDeletedModel(TimestampedModel):
    """A row that an administrator deletes is kept, marked by `deleted_at`, and can be restored."""

    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[Any] = SoftDeletedQuerySet.as_manager()

    class Meta:
        abstract = True

    def soft_delete(self) -> None:
        self.deleted_at = timezone.now()
        self.save(update_fields=["deleted_at"])

    def restore(self) -> None:
        self.deleted_at = None
        self.save(update_fields=["deleted_at"])


def refuse_taken_name(row: Any, name: str) -> None:
    """Raises ValidationError if another row of its model, one that is not deleted, has the name.

    The database's own constraint says the same, but neither which field it is nor anything to a person.
    """
    if type(row).objects.alive().filter(name=name).exclude(pk=row.pk).exists():
        raise ValidationError(f"There is another {row._meta.verbose_name} called “{name}”.")
