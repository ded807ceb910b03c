"""Names that a storage cannot hold: encoded, decoded, refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harvest.storage.base import RESERVED, Fault, StorageError
from harvest.storage.names import (
    INSTRUMENT_FOLDER,
    POSIX,
    S3,
    SMB,
    Rules,
    check_token,
    decode,
    encode,
    encode_name,
    is_token,
    split,
)

ALL = {"posix": POSIX, "smb": SMB, "s3": S3, "instrument folder": INSTRUMENT_FOLDER}

# Every code point, lone surrogates included, with the troublesome ones far more often than chance has them.
characters = st.one_of(
    st.characters(exclude_characters="/"),
    st.sampled_from('%%%0123456789ABCDEFabcdef. :*?"<>|\\\0\n\r\t\x7f\ud800\udfff\u0301é測🧪~$'),
)
plain_names = st.text(characters, min_size=1, max_size=40)
device_names = st.builds(
    "{}{}".format,
    st.sampled_from(["CON", "con", "PRN", "Aux", "NUL", "COM1", "lpt9", "COM²", "CONIN$", "conout$", "COM0", "CONS"]),
    st.sampled_from(["", ".txt", ".tar.gz", " .raw", ".", " ", "%", "1"]),
)
names = st.one_of(plain_names, device_names, st.sampled_from([".", "..", "...", RESERVED, RESERVED.upper(), "%", "%%"]))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
rules = st.sampled_from(list(ALL.values()))

SMB_DEVICE = re.compile(r"(?i:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|COM[1-9¹²³]|LPT[1-9¹²³]) *(\..*)?")


@given(paths, rules)
def test_decoding_gives_back_what_was_encoded(path: str, rules: Rules) -> None:
    assert decode(encode(path, rules)) == path


@given(paths, paths, rules)
def test_different_paths_stay_different(one: str, other: str, rules: Rules) -> None:
    assume(one != other)
    assert encode(one, rules) != encode(other, rules)


@given(paths, rules)
def test_what_was_encoded_can_be_held(path: str, rules: Rules) -> None:
    encoded = encode(path, rules)

    assert encoded.count("/") == path.count("/")
    encoded.encode()  # no lone surrogate is left
    assert encoded.split("/")[0].casefold() != RESERVED
    for name in split(encoded):
        assert "\0" not in name
        if rules in (SMB, INSTRUMENT_FOLDER):
            assert not re.search(r'[<>:"|?*\\\x00-\x1f]', name)
            assert name[-1] not in ". "
            assert not SMB_DEVICE.fullmatch(name)
        if rules is S3:
            assert not re.search(r"[\x00-\x1f\x7f\\]", name)


harmless_names = st.from_regex(r"[a-zA-Z0-9é測_+~=@,\- ]{5,40}\.(raw|d|fid)", fullmatch=True)


@given(st.lists(harmless_names, min_size=1, max_size=4).map("/".join), rules)
def test_a_harmless_path_keeps_its_name(path: str, rules: Rules) -> None:
    assume(not any(SMB_DEVICE.fullmatch(name) for name in path.split("/")))
    assert encode(path, rules) == path


@given(plain_names, rules)
def test_one_name_may_hold_a_slash(name: str, rules: Rules) -> None:
    encoded = encode_name(f"{name}/{name}", rules)

    assert "/" not in encoded
    assert decode(encoded) == f"{name}/{name}"


@pytest.mark.parametrize(
    ("path", "posix", "smb", "s3"),
    [
        ("run/fid", "run/fid", "run/fid", "run/fid"),
        ("a:b*c?", "a:b*c?", "a%3Ab%2Ac%3F", "a:b*c?"),
        ("back\\slash", "back\\slash", "back%5Cslash", "back%5Cslash"),
        ("new\nline", "new\nline", "new%0Aline", "new%0Aline"),
        ("trailing. ", "trailing. ", "trailing.%20", "trailing. "),
        ("dots...", "dots...", "dots..%2E", "dots..."),
        ("CON/nul.tar.gz", "CON/nul.tar.gz", "%43ON/%6Eul.tar.gz", "CON/nul.tar.gz"),
        ("CONTROL", "CONTROL", "CONTROL", "CONTROL"),
        ("a%41b", "a%2541b", "a%2541b", "a%2541b"),
        ("50%", "50%", "50%", "50%"),
        ("100%zz", "100%zz", "100%zz", "100%zz"),
        ("../.", ".%2E/%2E", ".%2E/%2E", ".%2E/%2E"),
        (".streamweave/tmp", "%2Estreamweave/tmp", "%2Estreamweave/tmp", "%2Estreamweave/tmp"),
        ("run/.streamweave", "run/.streamweave", "run/.streamweave", "run/.streamweave"),
        ("half \ud83d", "half %ED%A0%BD", "half %ED%A0%BD", "half %ED%A0%BD"),
    ],
)
def test_examples(path: str, posix: str, smb: str, s3: str) -> None:
    assert [encode(path, rules) for rules in (POSIX, SMB, S3)] == [posix, smb, s3]


@pytest.mark.parametrize(
    ("name", "rules", "fits"),
    [
        ("x" * 255, POSIX, True),
        ("x" * 256, POSIX, False),
        ("測" * 85, POSIX, True),
        ("測" * 86, POSIX, False),
        ("測" * 255, SMB, True),
        ("測" * 256, SMB, False),
        ("🧪" * 127, SMB, True),
        ("🧪" * 128, SMB, False),
        (":" * 85, SMB, True),
        (":" * 86, SMB, False),
        ("x" * 1024, S3, True),
        ("x" * 1025, S3, False),
    ],
)
def test_the_limit_is_counted_in_what_the_storage_counts(name: str, rules: Rules, fits: bool) -> None:
    if fits:
        assert decode(encode(name, rules)) == name
    else:
        with pytest.raises(StorageError, match=r"255|1024") as caught:
            encode(name, rules)
        assert caught.value.fault is Fault.NAME
        assert caught.value.permanent


def test_the_base_path_counts_where_the_whole_path_is_limited() -> None:
    encode("x" * 1000, S3, base_path="lab/" + "y" * 19)
    with pytest.raises(StorageError, match="1025 bytes"):
        encode("x" * 1000, S3, base_path="lab/" + "y" * 20)


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a//b"])
def test_a_path_with_an_empty_name_is_refused(path: str) -> None:
    with pytest.raises(StorageError) as caught:
        encode(path, POSIX)
    assert caught.value.fault is Fault.NAME


@pytest.mark.parametrize("token", ["", ".", "..", "../x", "a/b", "a\\b", "-x", "a b", "é", "x" * 201, "x\n"])
def test_a_token_that_could_lead_elsewhere_is_refused(token: str) -> None:
    assert not is_token(token)
    with pytest.raises(ValueError, match="cannot name temporary bytes"):
        check_token(token)


def test_a_token_may_be_what_attempts_are_named_by() -> None:
    assert check_token("6f1c2a52-0d54-4b1c-8a53-77d1c2f5b0aa.1") == "6f1c2a52-0d54-4b1c-8a53-77d1c2f5b0aa.1"
