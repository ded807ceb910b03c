from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from hooks import addresses
from hooks.addresses import AddressError, Target


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
        "2001::1",
        "2001:db8::1",
        "100::1",
    ],
)
def test_no_address_within_or_beside_the_house_is_public(address: str) -> None:
    assert not addresses.is_public(ipaddress.ip_address(address))
    assert not addresses.may_connect(ipaddress.ip_address(address), https=True)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_reached_by_https_only(address: str) -> None:
    assert addresses.may_connect(ipaddress.ip_address(address), https=True)
    assert not addresses.may_connect(ipaddress.ip_address(address), https=False)


def test_an_allowed_network_is_reached_by_either_and_no_other(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = [ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd00::/8")]
    for address in ("10.20.3.4", "::ffff:10.20.3.4", "fd00::1"):
        assert addresses.may_connect(ipaddress.ip_address(address), https=True)
        assert addresses.may_connect(ipaddress.ip_address(address), https=False)
    assert not addresses.may_connect(ipaddress.ip_address("10.21.0.1"), https=True)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://lims.example.org/hook?a=1", Target(True, "lims.example.org", 443, "/hook?a=1")),
        ("https://lims.example.org:8443", Target(True, "lims.example.org", 8443, "/")),
        ("https://[2606:4700::1]/x", Target(True, "2606:4700::1", 443, "/x")),
    ],
)
def test_the_parts_of_a_url(url: str, target: Target) -> None:
    assert addresses.parse(url) == target


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must begin with https://"),
        ("lims.example.org", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("gopher://example.org/", "must begin with https://"),
        ("https:///path", "must begin with https://"),
        ("http://lims.example.org/", "WEBHOOK_ALLOW_PRIVATE only"),
        ("https://user:pw@example.org/", "user name or password"),
        ("https://example.org@127.0.0.1/", "user name or password"),
        ("https://example.org/#x", "fragment"),
        ("https://example.org:99999/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://exa mple.org/", "a character"),
        ("https://example.org/\r\nX-Evil: 1", "a character"),
        ("https://exämple.org/", "a character"),
    ],
)
def test_a_url_that_is_none_of_a_webhook_is_refused(url: str, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        addresses.parse(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::1]"])
def test_every_way_to_write_this_machine_is_refused(host: str) -> None:
    with pytest.raises(AddressError, match=r"private address .*WEBHOOK_ALLOW_PRIVATE"):
        addresses.resolve(addresses.parse(f"https://{host}/"))


def test_only_the_allowed_addresses_of_a_name_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*args: Any, **kwargs: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 443, 0, 2)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert addresses.resolve(Target(True, "both.example.org", 443, "/")) == [ipaddress.ip_address("8.8.8.8")]
    with pytest.raises(AddressError, match="use https://"):
        addresses.resolve(Target(False, "both.example.org", 80, "/"))


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(AddressError, match=r"host nowhere\.invalid cannot be found"):
        addresses.resolve(Target(True, "nowhere.invalid", 443, "/"))
