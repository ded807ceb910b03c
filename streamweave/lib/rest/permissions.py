"""Who may ask. The default is that nobody but administrators may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.models import AnonymousUser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:
    # The settings name this module, so that it is imported while rest_framework.views is.
    from rest_framework.views import APIView


class IsAdministrator(BasePermission):
    """Administrators only; everybody else who is logged in gets the same 403, whether the object exists or not."""

    message = "Admin access required"

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(not isinstance(request.user, AnonymousUser) and request.user.is_superuser)
