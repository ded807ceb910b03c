"""The people who log in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.crypto import salted_hmac

from access.models.effective_members import owned_by, sync_effective_members
from access.policy import Role
from streamweave.lib.models import SoftDeletedModel, SoftDeletedQuerySet

IN_FORCE = Q(is_active=True, deleted_at__isnull=True)
TOKEN_ENDING = frozenset({"password", "role", "is_active", "deleted_at"})
"""Whoever changes one of these in a user ends every log-in and API token of his: `token_version` grows."""


class UserQuerySet(SoftDeletedQuerySet):
    def with_email(self, email: str) -> Self:
        """Those with this address, letter case aside. Both sides are folded by the database, as its unique index is."""
        return self.alias(folded_email=Lower("email")).filter(folded_email=Lower(Value(email)))

    def update(self, **values: Any) -> int:
        if values.keys() & TOKEN_ENDING:
            values["token_version"] = F("token_version") + 1
        if not values.keys() & {"is_active", "deleted_at"}:
            return super().update(**values)
        with transaction.atomic():
            users = list(self.order_by().values_list("pk", flat=True))
            changed = super().update(**values)
            sync_effective_members(owned_by(users=users))
        return changed

    def note_log_in(self) -> int:
        """Writes `last_login`, and that alone: `updated_at` tells of changes of the user."""
        return models.QuerySet.update(self, last_login=timezone.now())

    def log_out_everywhere(self) -> int:
        """Ends every session, log-in and API token of these users."""
        return super().update(token_version=F("token_version") + 1)


class UserManager(BaseUserManager.from_queryset(UserQuerySet)):  # type: ignore[misc]  # a base class that is made here
    def get_by_natural_key(self, username: str | None) -> User:
        return self.with_email(username or "").get()

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A new user. Without a password he cannot log in before he has set one.

        Raises ValueError without an address, IntegrityError if another user has it.
        """
        if not email:
            raise ValueError("email: a user needs an address, by which he logs in.")
        user = User(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A new administrator."""
        return self.create_user(email, password, **{**fields, "role": Role.ADMIN})


class User(AbstractBaseUser, PermissionsMixin, SoftDeletedModel):
    """A person who logs in by e-mail. `groups` are the `auth.Group`s of his groups and projects."""

    email = models.EmailField(unique=True, help_text="As it was given, the domain in lower case.")
    role = models.CharField(max_length=20, choices=Role, default=Role.USER)
    is_active = models.BooleanField(default=True, help_text="A deactivated user can neither log in nor see anything.")
    is_verified = models.BooleanField(default=False, help_text="The e-mail address was confirmed.")
    # Django and guardian let a superuser do everything without looking further, so the database itself keeps this one
    # true to the role.
    is_superuser = models.GeneratedField(
        expression=Q(role=Role.ADMIN) & IN_FORCE,  # type: ignore[arg-type]  # the stubs do not know that a Q is one
        output_field=models.BooleanField(),
        db_persist=True,
        serialize=False,
    )
    token_version = models.PositiveIntegerField(default=0, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    class Meta:
        ordering = ("created_at", "id")
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                name="user_email_unique",
                violation_error_message="email: another user already has this address (letter case does not count).",
            ),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="user_role_known"),
        ]

    def __str__(self) -> str:
        return self.email

    @property
    def is_staff(self) -> bool:
        """May open the admin pages."""
        return self.is_superuser

    def clean(self) -> None:
        super().clean()
        self.email = User.objects.normalize_email(self.email)

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """Sessions end when the password changes, as Django has it, and with everything else that ends tokens."""
        return salted_hmac(
            "access.models.User.session", f"{self.password}:{self.token_version}", secret=secret, algorithm="sha256"
        ).hexdigest()

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """`token_version` is never written from memory, where it may be older than in the database."""
        if self._state.adding:
            super().save(*args, update_fields=update_fields, **kwargs)
            return
        columns = {column.name for column in self._meta.concrete_fields if not column.generated}
        names = columns - {"id"} if update_fields is None else set(update_fields)
        # Django saves the password alone when it has only hashed the same one anew, at a log-in.
        only_hashed_anew = names == {"password"} and getattr(self, "_password", None) is None
        watched = set() if only_hashed_anew else TOKEN_ENDING & names
        with transaction.atomic():
            before = type(self).objects.filter(pk=self.pk).values(*watched).first() if watched else None
            super().save(*args, update_fields=names - {"token_version"}, **kwargs)
            self.__dict__.pop("is_superuser", None)  # the database may have changed it: read anew when asked for
            if before and any(getattr(self, name) != was for name, was in before.items()):
                type(self).objects.filter(pk=self.pk).log_out_everywhere()
                self.refresh_from_db(fields=["token_version"])
            if names & {"is_active", "deleted_at"}:
                sync_effective_members(owned_by(users=[self.pk]))


EffectiveMember = User.groups.through
"""The rows of the lists of effective members: `user_id`, and `group_id` of the `auth.Group`."""
