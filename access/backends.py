"""Logging in by e-mail, and refusing everything to who may not log in."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from access.models import User
from access.policy import may_log_in


class EmailBackend(BaseBackend):
    """The first of the authentication backends; guardian's, the second, answers for single files.

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
        """The user with this address (as `username` or as `email`) and password, unless deactivated or deleted."""
        email = username or credentials.get(User.USERNAME_FIELD)
        if not email or password is None:
            return None
        user = User.objects.with_email(email).first()
        if user is None:
            User().set_password(password)  # takes as long as for a known address, so that time tells nothing
            return None
        return user if user.check_password(password) and may_log_in(user) else None

    def get_user(self, user_id: Any) -> User | None:
        user = User.objects.filter(pk=user_id).first()
        return user if user is not None and may_log_in(user) else None

    def has_perm(self, user_obj: User | AnonymousUser, perm: str, obj: Any = None) -> bool:
        """False lets the next backend answer; PermissionDenied ends the question."""
        if not may_log_in(user_obj):
            raise PermissionDenied
        return False
