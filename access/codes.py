"""The codes that mails carry: for a new password, to confirm an address, to register by invitation.

None is kept: each is signed, names whom it is for, ends by itself, and is good once, because what it changes is signed
with it.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.core import signing

from access.models import User
from access.policy import may_log_in

VERIFICATION, INVITATION = "access.verification", "access.invitation"
VERIFICATION_SECONDS, INVITATION_SECONDS = 24 * 3600, 7 * 24 * 3600


class BadCodeError(ValueError):
    """The code from a mail is wrong, too old or used already."""

    def __init__(self) -> None:
        super().__init__("The code is wrong, too old or used already. Ask for a new mail.")


class _Resets(PasswordResetTokenGenerator):
    """Django's, good for PASSWORD_RESET_TIMEOUT, and only until something else ends the user's tokens."""

    key_salt = "access.password_reset"

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        return f"{super()._make_hash_value(user, timestamp)}{user.token_version}"


_RESETS = _Resets()


def reset_code(user: User) -> str:
    return f"{user.pk.hex}.{_RESETS.make_token(user)}"


def user_to_reset(code: str) -> User:
    """Whose password may be set with this code, locked until the transaction ends. Raises BadCodeError."""
    user_id, _, token = code.partition(".")
    user = _locked(user_id)
    if not _RESETS.check_token(user, token):
        raise BadCodeError
    return user


def verification_code(user: User) -> str:
    return signing.dumps([user.pk.hex, user.email], salt=VERIFICATION)


def user_to_verify(code: str) -> User:
    """Whose address is confirmed by this code, locked until the transaction ends. Raises BadCodeError."""
    user_id, email = _unsigned(code, VERIFICATION, VERIFICATION_SECONDS)
    user = _locked(user_id)
    if user.email != email or user.is_verified:
        raise BadCodeError
    return user


def invitation_code(email: str) -> str:
    return signing.dumps(email, salt=INVITATION)


def invited_email(code: str) -> str:
    """The address that was invited with this code. Raises BadCodeError."""
    return _unsigned(code, INVITATION, INVITATION_SECONDS)


def _unsigned(code: str, salt: str, seconds: int) -> Any:
    try:
        return signing.loads(code, salt=salt, max_age=seconds)
    except signing.BadSignature:
        raise BadCodeError from None


def _locked(user_id: str) -> User:
    """Locked, so that of two who show a code at the same moment the second finds it used."""
    try:
        user = User.objects.select_for_update().filter(pk=uuid.UUID(user_id)).first()
    except ValueError:
        user = None
    if user is None or not may_log_in(user):
        raise BadCodeError
    return user
