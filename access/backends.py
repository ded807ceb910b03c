"""Logging in by e-mail, and what a user may do with a single object."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest
from guardian.backends import ObjectPermissionBackend

from access import attempts
from access.attempts import Purpose
from access.audit import record
from access.models import User
from access.policy import is_admin, may_log_in
from access.sight import granted_codenames, is_file
from streamweave.lib.logs import one_line


class EmailBackend(BaseBackend):
    """The first of the authentication backends; GrantBackend, the second, answers for single files.

    It knows no model-wide permissions, so that nobody sees every file by way of one: administrators may do everything
    because they are superusers, all others have grants.
    """

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **credentials: Any,
    ) -> User | None:
        """The user with this address (as `username` or as `email`) and password, unless he may not log in.

        With a request, failures count, and both failure and success are written to the audit log. Raises
        TooManyAttemptsError.
        """
        email = username or credentials.get(User.USERNAME_FIELD)
        if not email or password is None:
            return None
        attempt = attempts.begin(Purpose.LOGIN, account=email, request=request) if request is not None else None
        user = User.objects.with_email(email).first()
        if user is None:
            User().set_password(password)  # takes as long as for a known address, so that time tells nothing
        elif not (user.check_password(password) and may_log_in(user) and _is_verified_enough(user)):
            user = None
        if attempt is not None:
            ip = attempts.address_of(request)
            if user is None:
                record("user.log_in_failed", by=None, detail={"email": one_line(email)[:254]}, ip=ip)
            else:
                attempt.forget()
                record("user.logged_in", by=user, on=user, ip=ip)
        return user

    def get_user(self, user_id: Any) -> User | None:
        user = User.objects.filter(pk=user_id).first()
        return user if user is not None and may_log_in(user) else None

    def has_perm(self, user_obj: User | AnonymousUser, perm: str, obj: Any = None) -> bool:
        """False lets the next backend answer; PermissionDenied ends the question."""
        if not may_log_in(user_obj):
            raise PermissionDenied
        return False


class GrantBackend(ObjectPermissionBackend):
    """Guardian's backend, except that for files only grants in force count, and those on whole instruments too."""

    def has_perm(self, user_obj: Any, perm: str, obj: models.Model | None = None) -> bool:
        if not is_file(obj):
            return obj is not None and super().has_perm(user_obj, perm, obj)
        app_label, _, codename = perm.rpartition(".")
        if app_label not in ("", obj._meta.app_label):
            return False
        return codename in self.get_all_permissions(user_obj, obj)

    def get_group_permissions(self, user_obj: Any, obj: models.Model | None = None) -> set[str]:
        if not is_file(obj):
            return set(super().get_group_permissions(user_obj, obj))
        return granted_codenames(user_obj, obj, directly=False) if may_log_in(user_obj) else set()

    def get_all_permissions(self, user_obj: Any, obj: models.Model | None = None) -> set[str]:
        if not is_file(obj):
            return set(super().get_all_permissions(user_obj, obj))
        return granted_codenames(user_obj, obj) if may_log_in(user_obj) else set()


def _is_verified_enough(user: User) -> bool:
    """Administrators were made by somebody at the server, or by another of them."""
    return user.is_verified or is_admin(user) or not settings.VERIFY_EMAIL
