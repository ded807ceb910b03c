"""How often somebody may try: to log in, to register, to have mails sent.

What counts is how many attempts came from one address for one account, and from one address altogether. Nobody is
locked out of his account by strangers who fail to get into it: they use up only what their own addresses may. While
very many fail on one account, each address has a single attempt at it, so that the right password still opens it.

An attempt is written down before it is made, so that simultaneous ones see each other.
"""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Count, Min, Q
from django.http import HttpRequest
from django.utils import timezone

from access.models import Attempt

UNDER_ATTACK = 10
"""An account on which this many times ATTEMPTS_PER_ACCOUNT attempts fail is under attack."""


class Purpose(models.TextChoices):
    LOGIN = "login"
    REGISTER = "register"
    MAIL = "mail"


class TooManyAttemptsError(Exception):
    """Refused without looking further; `wait_seconds` says when it is worth while to try again."""

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(f"Too many attempts. Try again in {wait_seconds} seconds.")
        self.wait_seconds = wait_seconds


class OpenAttempt:
    """An attempt that counts unless it is forgotten."""

    def __init__(self, row: Attempt) -> None:
        self._row = row

    def forget(self) -> None:
        """The attempt succeeded: neither it nor the failures before it, on this account from this address, count."""
        row = self._row
        Attempt.objects.filter(purpose=row.purpose, account=row.account, network=row.network).delete()


def begin(purpose: Purpose, *, account: str, request: HttpRequest) -> OpenAttempt:
    """Writes down an attempt on `account`, an e-mail address. Raises TooManyAttemptsError; then it does not count."""
    now, window = timezone.now(), timedelta(seconds=settings.ATTEMPT_SECONDS)
    Attempt.objects.filter(at__lte=now - window).delete()
    row = Attempt.objects.create(purpose=purpose, account=_digest(account), network=network_of(request), at=now)
    by_address, on_account = Q(network=row.network), Q(account=row.account)
    counted = Attempt.objects.filter(by_address | on_account, purpose=purpose).aggregate(
        by_address=Count("pk", filter=by_address),
        on_account=Count("pk", filter=on_account),
        both=Count("pk", filter=by_address & on_account),
        oldest_by_address=Min("at", filter=by_address),
        oldest_of_both=Min("at", filter=by_address & on_account),
    )
    allowed = settings.ATTEMPTS_PER_ACCOUNT
    attacked = counted["on_account"] > allowed * UNDER_ATTACK
    since = None
    if counted["both"] > (1 if attacked else allowed):
        since = counted["oldest_of_both"]
    elif row.network and counted["by_address"] > settings.ATTEMPTS_PER_ADDRESS:
        since = counted["oldest_by_address"]
    if since is not None:
        row.delete()
        raise TooManyAttemptsError(max(1, int((since + window - now).total_seconds()) + 1))
    return OpenAttempt(row)


def address_of(request: HttpRequest | None) -> str | None:
    """The address the request comes from, None if unknown.

    A trusted proxy's word is taken for who asked it (`X-Forwarded-For`, read from its end, where the nearest proxy
    writes); anybody else could write there what he likes.
    """
    if request is None:
        return None
    told = [one.strip() for one in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if one.strip()]
    address = _address(request.META.get("REMOTE_ADDR", ""))
    while told and (address is None or any(address in network for network in settings.TRUSTED_PROXIES)):
        before = _address(told.pop())
        if before is None:
            break
        address = before
    return str(address) if address is not None else None


def network_of(request: HttpRequest) -> str:
    """What counts as one address: of IPv6, where everybody has very many, the network of 64 bits; empty if unknown."""
    address = address_of(request)
    if address is not None and ":" in address:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return address or ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _digest(account: str) -> str:
    return hashlib.sha256(account.strip().lower().encode(errors="replace")).hexdigest()
