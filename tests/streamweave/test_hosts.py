"""What is taken for a host, and what is said of what is none."""

from __future__ import annotations

import pytest

from streamweave.lib.hosts import why_no_host


@pytest.mark.parametrize(
    "text",
    [
        "nmr",
        "NMR-400",
        "nmr_pc.example.org",
        "nmr.example.org.",
        "gerät.example.org",
        "7zip.example.org",
        "nmr:445",
        "192.0.2.7",
        "192.0.2.7:1445",
        "2001:db8::7",
        "::1",
        "fe80::1%eth0",
        "[2001:db8::7]",
        "[2001:db8::7]:445",
        "[fe80::1%eth0]:65535",
        ("a" * 63 + ".") * 3 + "a" * 61,
    ],
)
def test_hosts(text: str) -> None:
    assert why_no_host(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither a name nor an address"),
        ("a:445:445", "more than one colon"),
        ("1:2:3", "more than one colon"),
        ("[2001:db8::7", "in the brackets"),
        ("[nmr]", "in the brackets"),
        ("[192.0.2.7]", "in the brackets"),
        ("[]:445", "in the brackets"),
        ("[::1]445", "no port"),
        ("[::1]:", "no port"),
        ("[::1]:445:445", "no port"),
        ("nmr:", "no port"),
        ("nmr:0", "no port"),
        ("nmr:65536", "no port"),
        ("nmr:+445", "no port"),
        ("nmr:４４５", "no port"),
        ("nmr:" + "9" * 5000, "no port"),
        (":445", "neither"),
        ("300.1.1.1", "neither"),
        ("192.0.2", "neither"),
        ("1445", "neither"),
        ("nmr..org", "neither"),
        ("-nmr", "neither"),
        ("nmr-.org", "neither"),
        ("nmr pc", "neither"),
        ("nmr\\data", "neither"),
        ("//nmr/data", "neither"),
        ("user@nmr", "neither"),
        ("nmr\n", "neither"),
        ("a" * 64, "neither"),
        ("a." * 127 + "a", "neither"),
    ],
)
def test_what_is_no_host_is_refused_with_what_to_do(text: str, why: str) -> None:
    assert why in (why_no_host(text) or "")
