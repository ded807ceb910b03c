"""Letting users in and shutting them out."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from access.audit import record, record_change, record_changes, snapshot
from access.models import User


class LockedOutError(ValueError):
    """The change would leave nobody who can administer, or shut out the one who asks for it."""


def change_user(user: User, *, by: User, ip: str | None = None, **values: Any) -> User:
    """Sets fields of `user` as an administrator may.

    Raises ValidationError with the field if another has the address, LockedOutError.
    """
    with transaction.atomic():
        user = User.objects.select_for_update().get(pk=user.pk)
        before = snapshot(user)
        for name, value in values.items():
            setattr(user, name, value)
        user.clean()
        if "email" in values:
            refuse_taken_address(user)
        user.save()
        record_change("user.changed", by=by, on=user, before=before, after=snapshot(user), ip=ip)
        _check_who_is_left(by)
    return user


def change_own(
    user: User,
    *,
    current_password: str,
    email: str | None = None,
    password: str | None = None,
    ip: str | None = None,
) -> User:
    """Changes one's own address, which has to be confirmed anew, or password, which ends all one's log-ins.

    Raises ValidationError with the field.
    """
    if not user.check_password(current_password):
        raise ValidationError({"current_password": "This is not your password."})
    with transaction.atomic():
        user = User.objects.select_for_update().get(pk=user.pk)
        before = snapshot(user)
        if email is not None and email.lower() != user.email.lower():
            user.email, user.is_verified = User.objects.normalize_email(email), False
            refuse_taken_address(user)
        if password is not None:
            check_password(password, user)
            user.set_password(password)
        user.save()
        record_change("user.changed", by=user, on=user, before=before, after=snapshot(user), ip=ip)
    return user


def refuse_taken_address(user: User) -> None:
    """Raises ValidationError if another user has the address of `user`."""
    if User.objects.with_email(user.email).exclude(pk=user.pk).exists():
        raise ValidationError({"email": "Another user already has this address."})


def check_password(password: str, user: User, field: str = "password") -> None:
    """Raises ValidationError, with the field, if the password is not good enough."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationError({field: error.messages}) from None


def log_out_everywhere(user: User, *, ip: str | None = None) -> None:
    """Ends every session, log-in and API token of `user`."""
    with transaction.atomic():
        User.objects.filter(pk=user.pk).log_out_everywhere()
        record("user.logged_out_everywhere", by=user, on=user, ip=ip)


def delete_users(users: QuerySet[User], *, by: User | None = None, ip: str | None = None) -> int:
    """Marks users as deleted; they can be restored. Returns how many were not deleted before. Raises LockedOutError."""
    return _shut_out("user.deleted", users.filter(deleted_at=None), by=by, ip=ip, deleted_at=timezone.now())


def restore_users(users: QuerySet[User], *, by: User | None = None, ip: str | None = None) -> int:
    return _change("user.restored", users.exclude(deleted_at=None), by=by, ip=ip, deleted_at=None)


def deactivate_users(users: QuerySet[User], *, by: User | None = None, ip: str | None = None) -> int:
    """Shuts users out until they are activated. Returns how many were active before. Raises LockedOutError."""
    return _shut_out("user.deactivated", users.filter(is_active=True), by=by, ip=ip, is_active=False)


def activate_users(users: QuerySet[User], *, by: User | None = None, ip: str | None = None) -> int:
    return _change("user.activated", users.filter(is_active=False), by=by, ip=ip, is_active=True)


def _shut_out(action: str, users: QuerySet[User], *, by: User | None, ip: str | None, **values: Any) -> int:
    with transaction.atomic():
        changed = _change(action, users, by=by, ip=ip, **values)
        if changed:
            _check_who_is_left(by)
    return changed


def _check_who_is_left(by: User | None) -> None:
    if not User.objects.filter(is_superuser=True).exists():
        raise LockedOutError("There would be no administrator left. Make another user administrator first.")
    if by is not None and not User.objects.filter(pk=by.pk, is_superuser=True).exists():
        raise LockedOutError("You would shut yourself out. Ask another administrator to do it.")


def _change(action: str, users: QuerySet[User], *, by: User | None, ip: str | None, **values: Any) -> int:
    with transaction.atomic():
        before = {user: snapshot(user) for user in users.order_by("pk").select_for_update()}
        User.objects.filter(pk__in=[user.pk for user in before]).update(**values)
        changes = [(user, was, {**was, **values}) for user, was in before.items()]
        return record_changes(action, by=by, of=changes, ip=ip)
