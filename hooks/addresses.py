"""Where a webhook may be sent to: public addresses, and the private networks that the settings allow.

Against server-side request forgery (OWASP ASVS 5.0, 1.3.6): a URL that a person entered must not make this server talk
to its neighbours. Names are looked up once, every address is judged, and the caller connects to the judged address
itself, so that a name which changes its address between the two does not help.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_NOT_PUBLIC = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # RFC 8215, translation within one network
    ipaddress.IPv6Network("fec0::/10"),  # RFC 3879, site-local, deprecated
    ipaddress.IPv6Network("::/96"),  # RFC 4291, IPv4-compatible, deprecated
    ipaddress.IPv4Network("192.88.99.0/24"),  # RFC 7526, relays of 6to4, deprecated
)


class AddressError(ValueError):
    """A URL may not be sent to; the message says why, and what to do where that is known."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL: what to connect to and what to ask for."""

    https: bool
    host: str
    port: int
    path: str


def parse(url: str) -> Target:
    """The parts of a webhook's URL. Looks nothing up. Raises AddressError."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise AddressError("The URL holds a character that URLs do not have; encode it (%20, xn--…).")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"This is no URL: {error}.") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise AddressError("The URL must begin with https:// and a host.")
    if parts.username is not None or parts.password is not None:
        raise AddressError("The URL must not hold a user name or password; what is sent is signed instead.")
    if parts.fragment:
        raise AddressError("The URL must not hold a fragment (#…); it is never sent.")
    https = parts.scheme == "https"
    if not https and not settings.WEBHOOK_ALLOW_PRIVATE:
        raise AddressError("The URL must begin with https://; http:// is for networks in WEBHOOK_ALLOW_PRIVATE only.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(https, parts.hostname, port if port is not None else (443 if https else 80), path)


def resolve(target: Target) -> Sequence[IPAddress]:
    """The addresses of the target's host that may be connected to, at least one. Raises AddressError."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"The host {target.host} cannot be found: {error}.") from None
    addresses = [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]
    allowed = [address for address in addresses if may_connect(address, https=target.https)]
    if allowed:
        return allowed
    if any(map(is_public, addresses)):
        raise AddressError("http:// is for networks in the setting WEBHOOK_ALLOW_PRIVATE only; use https://.")
    raise AddressError(
        f"The host {target.host} has the private address {addresses[0]}. An administrator of this server can allow"
        " its network in the setting WEBHOOK_ALLOW_PRIVATE."
    )


def may_connect(address: IPAddress, *, https: bool) -> bool:
    address = embedded(address)
    return any(address in network for network in settings.WEBHOOK_ALLOW_PRIVATE) or (https and is_public(address))


def is_public(address: IPAddress) -> bool:
    address = embedded(address)
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_PUBLIC)
    )


def embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, NAT64), where it does; else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address
