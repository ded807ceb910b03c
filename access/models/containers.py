"""Groups and projects. Each owns one `auth.Group`, which lists its effective members."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from django.contrib.auth.models import Group as AuthGroup
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Lower

from access.models.effective_members import one_at_a_time, owned_by, sync_effective_members
from streamweave.lib.models import SoftDeletedModel, SoftDeletedQuerySet


class ContainerQuerySet(SoftDeletedQuerySet):
    def update(self, **values: Any) -> int:
        if "deleted_at" not in values:
            return super().update(**values)
        with transaction.atomic():
            ids = list(self.order_by().values_list("pk", flat=True))
            changed = super().update(**values)
            sync_effective_members(self.model.touched(ids))
        return changed

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            one_at_a_time()
            touched = self.model.touched(list(self.order_by().values_list("pk", flat=True)))
            owned = list(self.order_by().values_list("auth_group_id", flat=True))
            deleted = super().delete()
            AuthGroup.objects.filter(pk__in=owned).delete()
            sync_effective_members(touched)
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]  # Django's marks on functions
    delete.queryset_only = True  # type: ignore[attr-defined]  # the same


class Container(SoftDeletedModel):
    """What a Group and a Project have in common."""

    KIND: ClassVar[str]

    name = models.CharField(max_length=200)
    description = models.TextField(null=True, blank=True)
    auth_group = models.OneToOneField(
        AuthGroup, on_delete=models.PROTECT, related_name="access_%(class)s", editable=False
    )

    objects: ClassVar[models.Manager[Any]] = ContainerQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        super().clean()
        self.name = self.name.strip()
        self.description = self.description or None

    @classmethod
    def touched(cls, ids: Collection[uuid.UUID]) -> set[int]:
        """Ids of the `auth.Group`s whose effective members depend on these containers. Group and Project each say it;
        a model cannot have abstract methods."""
        raise NotImplementedError

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        was_adding = self._state.adding
        names = None if update_fields is None else set(update_fields)
        with transaction.atomic():
            if was_adding and not self.auth_group_id:
                self.auth_group = AuthGroup.objects.create(name=f"{self.KIND}:{self.pk}")
            super().save(*args, update_fields=names, **kwargs)
            if not was_adding and (names is None or "deleted_at" in names):
                sync_effective_members(self.touched([self.pk]))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        return type(self).objects.filter(pk=self.pk).delete()

    def restore(self) -> None:
        """Raises ValidationError if another has taken the name meanwhile."""
        self.deleted_at = None
        self.validate_constraints()
        super().restore()


def unique_name(kind: str) -> list[models.BaseConstraint]:
    """Names are unique among those that are not deleted, letter case aside, and never empty."""
    return [
        models.UniqueConstraint(
            Lower("name"),
            condition=Q(deleted_at=None),
            name=f"{kind}_name_unique",
            violation_error_message=f"name: another {kind} is already called so (letter case does not count).",
        ),
        models.CheckConstraint(
            condition=~Q(name=""), name=f"{kind}_name_given", violation_error_message="name: must not be empty."
        ),
    ]


class Group(Container):
    """Users who belong together: a laboratory, a core facility."""

    KIND = "group"

    class Meta(Container.Meta):
        constraints = unique_name("group")

    @classmethod
    def touched(cls, ids: Collection[uuid.UUID]) -> set[int]:
        return owned_by(groups=ids)


class Project(Container):
    """A piece of work, shared by users and by whole groups."""

    KIND = "project"

    class Meta(Container.Meta):
        constraints = unique_name("project")

    @classmethod
    def touched(cls, ids: Collection[uuid.UUID]) -> set[int]:
        return owned_by(projects=ids)
