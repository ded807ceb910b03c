"""Who asks: told by the `Authorization: Bearer …` header (RFC 6750), which goes before any cookie."""

from __future__ import annotations

from typing import cast

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from access import api_tokens, tokens
from access.models import ApiToken, TokenFamily, User


class BearerAuthentication(BaseAuthentication):
    """Reads the header. A bearer token that is not good is refused, whatever else the request carries."""

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"

    def bearer(self, request: Request) -> str | None:
        """The token; None if there is no such header. Raises AuthenticationFailed if it holds anything but a token."""
        scheme, *rest = get_authorization_header(request).split() or [b""]
        if scheme.lower() != b"bearer":
            return None
        try:
            (token,) = rest
            return token.decode("ascii")
        except ValueError:
            raise AuthenticationFailed("The header must be: Authorization: Bearer, a space, the token.") from None


class ApiTokenAuthentication(BearerAuthentication):
    """Personal API tokens. `request.auth` is the ApiToken."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        text = self.bearer(request)
        if text is None or not text.startswith(api_tokens.PREFIX):
            return None
        token = api_tokens.find(text)
        if token is None:
            raise AuthenticationFailed("The API token is not valid, or not any more. Make a new one.")
        if token.read_only and request.method not in SAFE_METHODS:
            raise PermissionDenied("This API token may only read. Use one with full access.")
        return token.user, token


class JWTAuthentication(BearerAuthentication):
    """Access tokens of a log-in. `request.auth` is its TokenFamily."""

    def authenticate(self, request: Request) -> tuple[User, TokenFamily] | None:
        text = self.bearer(request)
        if text is None or text.startswith(api_tokens.PREFIX):
            return None
        try:
            family = tokens.whose(text)
        except tokens.BadTokenError as error:
            raise AuthenticationFailed(str(error)) from None
        return family.user, family


def acting(request: Request) -> User:
    """The user who asks, in a view whose permissions let nobody else in."""
    return cast(User, request.user)
