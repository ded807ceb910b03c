"""Log-ins by JWT (RFC 7519): access tokens for an hour, and refresh tokens, each good once, that follow each other.

A token names its user (`sub`), its family (`fam`) and the user's `token_version` (`ver`). Whatever ends a user's
tokens raises that version, and logging out ends the family, both at once and for access tokens too.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from access.audit import record
from access.models import TokenFamily, User
from access.policy import may_log_in


class BadTokenError(ValueError):
    """Not one of ours, altered, expired, used up or ended; which of these it is nobody needs to know."""

    def __init__(self) -> None:
        super().__init__("The token is not valid, or not any more. Log in again.")


_LIFETIME = api_settings.REFRESH_TOKEN_LIFETIME


@dataclass(frozen=True, slots=True)
class TokenPair:
    access: str
    refresh: str


def log_in(user: User) -> TokenPair:
    """A new log-in of `user`. Those of his that have ended by themselves are forgotten."""
    now = timezone.now()
    TokenFamily.objects.filter(user=user, expires_at__lte=now).delete()
    return _pair(TokenFamily.objects.create(user=user, expires_at=now + _LIFETIME))


def whose(access_token: str) -> TokenFamily:
    """The log-in, with its user, that an access token belongs to; one query. Raises BadTokenError."""
    family, _ = _opened(AccessToken, access_token)
    return family


def refresh(refresh_token: str) -> TokenPair:
    """New tokens for a refresh token. Shown a second time it ends the log-in. Raises BadTokenError."""
    family, used = _opened(RefreshToken, refresh_token)
    following = uuid.uuid4()
    newest = TokenFamily.objects.filter(pk=family.pk, refresh_id=used, revoked_at=None)
    if not newest.update(refresh_id=following, expires_at=timezone.now() + _LIFETIME):
        _end_stolen(family)
        raise BadTokenError
    family.refresh_id = following
    return _pair(family)


def log_out(family: TokenFamily, *, ip: str | None = None) -> None:
    """Ends the log-in and all its tokens."""
    with transaction.atomic():
        if TokenFamily.objects.filter(pk=family.pk, revoked_at=None).update(revoked_at=timezone.now()):
            record("user.logged_out", by=family.user, on=family.user, ip=ip)


def _end_stolen(family: TokenFamily) -> None:
    with transaction.atomic():
        if TokenFamily.objects.filter(pk=family.pk, revoked_at=None).update(revoked_at=timezone.now()):
            record("user.token_reused", by=None, on=family.user)


def _pair(family: TokenFamily) -> TokenPair:
    token = RefreshToken()
    token["jti"] = family.refresh_id.hex
    token["sub"], token["fam"], token["ver"] = str(family.user_id), str(family.pk), family.user.token_version
    return TokenPair(access=str(token.access_token), refresh=str(token))


def _opened(kind: type[Token], text: str) -> tuple[TokenFamily, uuid.UUID]:
    """The family, with its user, of a token that is good, and the token's own id."""
    try:
        token = kind(text)  # type: ignore[arg-type]  # it takes the text, whatever its annotation says
        family_id, token_id = uuid.UUID(token["fam"]), uuid.UUID(token["jti"])
    except (TokenError, KeyError, ValueError, TypeError, AttributeError):
        raise BadTokenError from None
    family = TokenFamily.objects.select_related("user").filter(pk=family_id, revoked_at=None).first()
    if (
        family is None
        or str(family.user_id) != token.get("sub")
        or family.user.token_version != token.get("ver")
        or not may_log_in(family.user)
    ):
        raise BadTokenError
    return family, token_id
