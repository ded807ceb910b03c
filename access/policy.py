"""The roles, and what each of them may do. Nothing else in the product asks for a role by its name.

There are no model-wide permissions: administrators may do everything, all others see the files that a grant shows them
and what is their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from access.models import User

VIEW_FILE = "view_filerecord"
"""The one permission that a grant on a file gives; django-guardian is asked for `harvest.view_filerecord`."""
FILE_APP = "harvest"


class Role(models.TextChoices):
    ADMIN = "admin", "administrator"
    USER = "user", "user"


def may_log_in(user: User | AnonymousUser) -> bool:
    """Neither deactivated nor deleted, and not the anonymous user. Who may not log in sees nothing at all."""
    return user.is_authenticated and user.is_active and user.deleted_at is None


def is_admin(user: User | AnonymousUser) -> bool:
    """May administer everything and see every file: has the role, and is neither deactivated nor deleted."""
    return may_log_in(user) and user.is_superuser
