"""Personal API tokens: made, found, used, revoked."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from access.audit import record
from access.models import ApiToken, User
from access.models.grants import unexpired
from access.policy import may_log_in

PREFIX = "swt_"
"""So that scanners for leaked secrets, and people, know one when they see it."""
USED_EVERY = timedelta(minutes=1)
"""The time of last use is written at most so often."""


def make(
    *, user: User, name: str, read_only: bool = True, expires_at: datetime | None = None, ip: str | None = None
) -> tuple[ApiToken, str]:
    """A new token, and its text, which is not kept: it cannot be shown again.

    Raises ValidationError if the user has one of this name, or if it would have ended already.
    """
    text = PREFIX + secrets.token_urlsafe(32)  # 256 random bits: a digest without salt keeps them
    row = ApiToken(
        user=user,
        token_version=user.token_version,
        name=name,
        hint=text[: len(PREFIX) + 6],
        digest=_digest(text),
        read_only=read_only,
        expires_at=expires_at,
    )
    row.full_clean()
    with transaction.atomic():
        row.save(force_insert=True)
        record("api_token.created", by=user, on=row, detail={"name": name, "read_only": read_only}, ip=ip)
    return row, text


def find(text: str) -> ApiToken | None:
    """The token, with its user, if both are good; one query. Its use is noted."""
    row = ApiToken.objects.select_related("user").filter(unexpired(), digest=_digest(text), revoked_at=None).first()
    if row is None or row.token_version != row.user.token_version or not may_log_in(row.user):
        return None
    now = timezone.now()
    if row.last_used_at is None or row.last_used_at < now - USED_EVERY:
        ApiToken.objects.filter(pk=row.pk).update(last_used_at=now)
    return row


def revoke(token_id: uuid.UUID, *, of: User, ip: str | None = None) -> bool:
    """Ends this token of the user at once; whether there was one."""
    with transaction.atomic():
        row = ApiToken.objects.filter(pk=token_id, user=of, revoked_at=None).first()
        if row is None or not ApiToken.objects.filter(pk=row.pk, revoked_at=None).update(revoked_at=timezone.now()):
            return False
        record("api_token.revoked", by=of, on=row, detail={"name": row.name}, ip=ip)
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
