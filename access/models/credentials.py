"""What lets a client in besides a password: log-ins by JWT and personal API tokens; and the attempts to get in.

Both carry the user's `token_version` of the moment they were made. It grows with every change of his password, role,
activation or deletion and when he logs out everywhere, so that none of them outlives that.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone


class TokenFamily(models.Model):
    """The tokens of one log-in: the access tokens and the refresh tokens that follow from each other.

    Only the newest refresh token (`refresh_id`) is good. One that was used before is shown by a thief, or by the owner
    after a thief; in both cases the family ends.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="token_families")
    refresh_id = models.UUIDField(default=uuid.uuid4)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(help_text="When its newest refresh token ends.")
    revoked_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        ordering = ("created_at", "id")
        verbose_name_plural = "token families"

    def __str__(self) -> str:
        return f"log-in of {self.user_id} at {self.created_at:%Y-%m-%d %H:%M}"


class ApiToken(models.Model):
    """A personal token for scripts, shown once; only its digest is kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    token_version = models.PositiveIntegerField()
    name = models.CharField(max_length=100, help_text="What it is for.")
    hint = models.CharField(max_length=12, editable=False, help_text="How the token begins.")
    digest = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256 of the token.")
    read_only = models.BooleanField(default=True, help_text="May ask, and change nothing.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Null: no end.")
    last_used_at = models.DateTimeField(null=True, editable=False, help_text="To within a minute.")
    revoked_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        ordering = ("created_at", "id")
        verbose_name = "API token"
        constraints = [
            models.UniqueConstraint(
                fields=["user", "name"],
                condition=Q(revoked_at=None),
                name="api_token_name_unique",
                violation_error_message="name: you have a token of this name already; revoke it or choose another.",
            ),
            models.CheckConstraint(
                condition=~Q(name=""), name="api_token_name_given", violation_error_message="name: must not be empty."
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"


class Attempt(models.Model):
    """One attempt to log in, to register, or to have a mail sent; kept while it counts against further ones."""

    purpose = models.CharField(max_length=20)
    account = models.CharField(max_length=64, help_text="SHA-256 of the e-mail, which may be a mistyped password.")
    network = models.CharField(max_length=45, help_text="IPv4 address or IPv6 network of 64 bits; empty if unknown.")
    at = models.DateTimeField(default=timezone.now)

    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        ordering = ("at", "id")
        indexes = [
            models.Index(fields=["purpose", "network", "at"], name="attempt_from_network"),
            models.Index(fields=["purpose", "account", "at"], name="attempt_on_account"),
            models.Index(fields=["at"], name="attempt_oldest"),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} from {self.network or 'somewhere'}"
