from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamweave.lib import ark

arks = st.text(ark.ALPHABET, min_size=ark.BLADE_CHARACTERS, max_size=ark.BLADE_CHARACTERS).map(
    lambda blade: f"ark:/99999/fk4{blade}{ark.check_character('99999/fk4' + blade)}"
)
NAME = len("ark:/")  # where the check zone begins
LENGTH = len("ark:/99999/fk4") + ark.BLADE_CHARACTERS + 1


@pytest.mark.parametrize("zone", ["99999/fk43n3kd35", "13960/t5n960f7n", "12345/x6np1wh8k"])
def test_known_arks_have_the_check_character_that_we_compute(zone):
    assert ark.check_character(zone[:-1]) == zone[-1]
    assert ark.is_valid(f"ark:/{zone}")
    assert ark.is_valid(f"ark:{zone}")


def test_a_minted_ark_is_valid_new_and_short_enough_to_be_checked():
    minted = {ark.mint("99999", "fk4"), *ark.mint_many("99999", "fk4", 1000)}
    assert len(minted) == 1001
    for one in minted:
        assert ark.is_valid(one)
        assert one.startswith("ark:/99999/fk4")
        assert len(one) == LENGTH
        assert len(one) - NAME <= ark.ZONE_CHARACTERS < 29


@given(arks, st.integers(NAME, LENGTH - 1), st.sampled_from(ark.ALPHABET + "/laeiouy-ABC\n"))
def test_every_wrong_character_is_caught(valid, position, character):
    wrong = valid[:position] + character + valid[position + 1 :]
    assert ark.is_valid(wrong) == (wrong == valid)


@given(arks, st.integers(NAME, LENGTH - 1), st.integers(NAME, LENGTH - 1))
def test_every_exchange_of_two_characters_is_caught(valid, one, other):
    characters = list(valid)
    characters[one], characters[other] = characters[other], characters[one]
    wrong = "".join(characters)
    assert ark.is_valid(wrong) == (wrong == valid)


@pytest.mark.parametrize(
    "text",
    ["", "ark:/", "99999/fk43n3kd35", "ark:/99999/", "ark:/99999/0", "ark:/99999/FK43N3KD35", "ark://99999/fk43n3kd35"],
)
def test_what_is_no_ark_is_not_valid(text):
    assert not ark.is_valid(text)


@pytest.mark.parametrize(
    ("naan", "shoulder"), [("9999", "fk4"), ("99999", "fk"), ("99999", "4"), ("99999", "bcdfg4"), ("99999", "al1")]
)
def test_nothing_is_minted_under_what_cannot_be_checked(naan, shoulder):
    with pytest.raises(ValueError, match=repr(naan)):
        ark.mint(naan, shoulder)


def test_many_are_minted_of_every_character_alike():
    drawn = "".join(minted[-1 - ark.BLADE_CHARACTERS : -1] for minted in ark.mint_many("99999", "fk4", 10_000))
    fair = len(drawn) / len(ark.ALPHABET)
    assert {character for character in ark.ALPHABET if abs(drawn.count(character) - fair) > 0.1 * fair} == set()
    assert ark.mint_many("99999", "fk4", 0) == []
