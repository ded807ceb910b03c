"""Keyed hashes say whether a text is as it was, and whose purpose it served."""

from __future__ import annotations

from typing import Any

import pytest

from streamweave.lib import macs
from streamweave.lib.keys import new_key


def test_a_signature_is_that_of_one_text_for_one_purpose() -> None:
    signature = macs.sign("one", b"text")
    assert macs.is_signed("one", b"text", signature)
    assert not macs.is_signed("other", b"text", signature)
    assert not macs.is_signed("one", b"text ", signature)


@pytest.mark.parametrize("text", ["", "v1", "v1::", "v2:00000000:00", "nonsense", "é:é:é"])
def test_what_is_no_signature_signs_nothing(text: str) -> None:
    assert not macs.is_signed("one", b"text", text)


def test_a_signature_with_anything_added_is_none() -> None:
    assert not macs.is_signed("one", b"text", macs.sign("one", b"text") + "é")


def test_the_first_key_signs_and_all_of_them_verify(settings: Any) -> None:
    old = macs.sign("one", b"text")
    settings.ENCRYPTION_KEYS = [new_key(), *settings.ENCRYPTION_KEYS]
    new = macs.sign("one", b"text")
    assert old != new
    assert macs.is_signed("one", b"text", old)
    assert macs.is_signed("one", b"text", new)


def test_a_missing_key_is_told_and_not_taken_for_a_change(settings: Any) -> None:
    signature = macs.sign("one", b"text")
    settings.ENCRYPTION_KEYS = [new_key()]
    with pytest.raises(macs.UnknownKeyError, match="STREAMWEAVE_ENCRYPTION_KEYS"):
        macs.is_signed("one", b"text", signature)


def test_a_signature_tells_nothing_of_the_key(settings: Any) -> None:
    assert settings.ENCRYPTION_KEYS[0] not in macs.sign("one", b"text")
