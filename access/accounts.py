"""Letting users in and shutting them out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from access.audit import record
from access.models import User


class LockedOutError(ValueError):
    """The change would leave nobody who can administer, or shut out the one who asks for it."""


def delete_users(users: QuerySet[User], *, by: User | None = None) -> int:
    """Marks users as deleted; they can be restored. Returns how many were not deleted before. Raises LockedOutError."""
    return _shut_out("user.deleted", users.filter(deleted_at=None), by=by, deleted_at=timezone.now())


def restore_users(users: QuerySet[User], *, by: User | None = None) -> int:
    return _change("user.restored", users.exclude(deleted_at=None), by=by, deleted_at=None)


def deactivate_users(users: QuerySet[User], *, by: User | None = None) -> int:
    """Shuts users out until they are activated. Returns how many were active before. Raises LockedOutError."""
    return _shut_out("user.deactivated", users.filter(is_active=True), by=by, is_active=False)


def activate_users(users: QuerySet[User], *, by: User | None = None) -> int:
    return _change("user.activated", users.filter(is_active=False), by=by, is_active=True)


def _shut_out(action: str, users: QuerySet[User], *, by: User | None, **values: Any) -> int:
    with transaction.atomic():
        changed = _change(action, users, by=by, **values)
        if changed and not User.objects.filter(is_superuser=True).exists():
            raise LockedOutError("There would be no administrator left. Make another user administrator first.")
        if by is not None and User.objects.filter(pk=by.pk).exclude(is_active=True, deleted_at=None).exists():
            raise LockedOutError("You would shut yourself out. Ask another administrator to do it.")
    return changed


def _change(action: str, users: QuerySet[User], *, by: User | None, **values: Any) -> int:
    with transaction.atomic():
        named: Collection[tuple[Any, str]] = list(users.order_by().values_list("pk", "email"))
        if named:
            User.objects.filter(pk__in=[pk for pk, _ in named]).update(**values)
            listed = [{"user_id": str(pk), "email": email} for pk, email in named]
            record(action, by=by, on=User, detail={"users": listed})
    return len(named)
