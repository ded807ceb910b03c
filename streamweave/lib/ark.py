"""Archival Resource Keys: minting them and checking them.

An ARK reads `ark:/NAAN/name`: the number of the authority that gives names (NAAN), then the name, here a shoulder that
marks our part of that authority's names, a random blade, and a check character. Shape and alphabet are those of the ARK
identifier scheme (draft-kunze-ark) and the check character that of NOID, the "Noid Check Digit Algorithm" (NCDA) in
https://metacpan.org/dist/Noid/view/noid.

The check character is computed over the *check zone*, "NAAN/name". It catches every single wrong character and every
exchange of two of them, as long as the zone, itself included, is shorter than the alphabet's 29 characters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from operator import mul

ALPHABET = "0123456789bcdfghjkmnpqrstvwxz"
"""NOID's betanumeric characters: no vowels, so that no words arise, and no "l", which looks like a one."""

BLADE_CHARACTERS = 16
"""29 ** 16 names per shoulder, about 77 bits: two equal ones are not to be expected among any number of files."""

ZONE_CHARACTERS = len(ALPHABET) - 1
"""The greatest length of a check zone, its check character included, in which every such error is caught."""

_VALUES = {character: value for value, character in enumerate(ALPHABET)}
_PLACES = bytes(_VALUES.get(chr(byte), 0) for byte in range(256))
"""The place in the alphabet of each character."""
_BEYOND = bytes(range(256 // len(ALPHABET) * len(ALPHABET), 256))
_CHARACTERS = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
"""A character of the alphabet for each byte that is not _BEYOND, each for as many of them."""
_NAAN = re.compile(f"[{ALPHABET}]{{5}}")
_SHOULDER = re.compile(f"[{ALPHABET[10:]}]+[0-9]")
_ARK = re.compile(f"ark:/?([{ALPHABET}]{{5}}/[{ALPHABET}]{{2,}})")


def is_naan(text: str) -> bool:
    """Whether `text` has the form of a name assigning authority number."""
    return _NAAN.fullmatch(text) is not None


def is_shoulder(text: str) -> bool:
    """Whether names may begin with `text`: consonants closed by one digit, short enough for the check zone."""
    zone = 5 + 1 + len(text) + BLADE_CHARACTERS + 1
    return _SHOULDER.fullmatch(text) is not None and zone <= ZONE_CHARACTERS


def check_character(zone: str) -> str:
    """The check character of a check zone that does not have its own yet, such as "13960/t5n960f7".

    Each character's place in the alphabet (0 for any that is not in it) times its position, counted from 1; the sum,
    modulo 29, is the check character's place.
    """
    return ALPHABET[_weighted(zone) % len(ALPHABET)]


def _weighted(zone: str) -> int:
    return sum(position * _VALUES.get(character, 0) for position, character in enumerate(zone, start=1))


def is_valid(ark: str) -> bool:
    """Whether `ark`, with or without the older slash after "ark:", is well formed and its check character is right."""
    match = _ARK.fullmatch(ark)
    return match is not None and check_character(match[1][:-1]) == match[1][-1]


def mint(naan: str, shoulder: str) -> str:
    """A new random ARK under this authority and shoulder. Raises ValueError where one of them cannot be used."""
    return mint_many(naan, shoulder, 1)[0]


def mint_many(naan: str, shoulder: str, count: int) -> list[str]:
    """`count` new random ARKs, as `mint` gives one: random bytes and the table of values serve all of them at once."""
    if not is_naan(naan) or not is_shoulder(shoulder):
        raise ValueError(f"No ARK can be minted under {naan!r} and {shoulder!r}.")
    start = f"{naan}/{shoulder}"
    fixed = _weighted(start)
    positions = range(len(start) + 1, len(start) + BLADE_CHARACTERS + 1)
    minted = []
    for blade in _blades(count):
        total = fixed + sum(map(mul, positions, blade.translate(_PLACES)))
        minted.append(f"ark:/{start}{blade.decode()}{ALPHABET[total % len(ALPHABET)]}")
    return minted


def _blades(count: int) -> Iterator[bytes]:
    """`count` blades of random characters, each as likely as any other: bytes beyond the last whole round of the
    alphabet are left out."""
    characters = b""
    while (missing := count * BLADE_CHARACTERS - len(characters)) > 0:
        characters += os.urandom(missing + missing // 8).translate(_CHARACTERS, _BEYOND)
    for start in range(0, count * BLADE_CHARACTERS, BLADE_CHARACTERS):
        yield characters[start : start + BLADE_CHARACTERS]
