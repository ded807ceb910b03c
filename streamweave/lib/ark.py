"""Archival Resource Keys: minting them and checking them.

An ARK reads `ark:/NAAN/name`: the number of the authority that gives names (NAAN), then the name, here a shoulder that
marks our part of that authority's names, a random blade, and a check character. Shape and alphabet are those of the ARK
identifier scheme (draft-kunze-ark) and the check character that of NOID, the "Noid Check Digit Algorithm" (NCDA) in
https://metacpan.org/dist/Noid/view/noid.

The check character is computed over the *check zone*, "NAAN/name". It catches every single wrong character and every
exchange of two of them, as long as the zone, itself included, is shorter than the alphabet's 29 characters.
"""

from __future__ import annotations

import re
import secrets

ALPHABET = "0123456789bcdfghjkmnpqrstvwxz"
"""NOID's betanumeric characters: no vowels, so that no words arise, and no "l", which looks like a one."""

BLADE_CHARACTERS = 16
"""29 ** 16 names per shoulder, about 77 bits: two equal ones are not to be expected among any number of files."""

ZONE_CHARACTERS = len(ALPHABET) - 1
"""The greatest length of a check zone, its check character included, in which every such error is caught."""

_VALUES = {character: value for value, character in enumerate(ALPHABET)}
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
    total = sum(position * _VALUES.get(character, 0) for position, character in enumerate(zone, start=1))
    return ALPHABET[total % len(ALPHABET)]


def is_valid(ark: str) -> bool:
    """Whether `ark`, with or without the older slash after "ark:", is well formed and its check character is right."""
    match = _ARK.fullmatch(ark)
    return match is not None and check_character(match[1][:-1]) == match[1][-1]


def mint(naan: str, shoulder: str) -> str:
    """A new random ARK under this authority and shoulder. Raises ValueError where one of them cannot be used."""
    if not is_naan(naan) or not is_shoulder(shoulder):
        raise ValueError(f"No ARK can be minted under {naan!r} and {shoulder!r}.")
    zone = f"{naan}/{shoulder}" + "".join(secrets.choice(ALPHABET) for _ in range(BLADE_CHARACTERS))
    return f"ark:/{zone}{check_character(zone)}"
