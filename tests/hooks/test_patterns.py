from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.patterns import Glob, PatternError, Regex
from tests.hooks.files import a_file


def matches(pattern: str, path: str) -> bool:
    return Glob(pattern).matches(a_file(path))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.tmp", "scratch.tmp"),
        ("*.tmp", "deep/er/scratch.tmp"),
        ("*.TMP", "scratch.tmp"),
        ("*.tmp", "SCRATCH.TMP"),
        ("~*", "a/~lock.docx"),
        ("fid", "20260115_glucose_1H/fid"),
        ("?r", "pdata/1/1r"),
        ("[0-9]r", "pdata/1/1r"),
        ("[!a-z]r", "pdata/1/1r"),
        ("[]]", "a/]"),
        ("a[b", "a[b"),
        ("messung (1) + ü.txt", "Messung (1) + Ü.txt"),
        ("*", "a\nb"),
        ("raw/*.d", "raw/x.d"),
        ("/raw/*.d", "raw/x.d"),
        ("raw/**", "raw/a/b/c"),
        ("raw/", "raw/a/b/c"),
        ("**/pdata/**", "20260115_glucose_1H/pdata/1/1r"),
        ("**/pdata/**", "pdata/1"),
        ("**/*.tmp", "scratch.tmp"),
        ("a/**/z", "a/z"),
        ("a/**/z", "a/b/c/z"),
        ("*.tmp", "bad\udc80name.tmp"),
    ],
)
def test_a_glob_matches(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.tmp", "scratch.tmp.bak"),
        ("*.tmp", "x.tmp/fid"),
        ("~*", "a~"),
        ("fid", "fids"),
        ("raw/*.d", "raw/sub/x.d"),
        ("raw/*.d", "other/raw/x.d"),
        ("raw/**", "raw"),
        ("raw/**", "rawer/x"),
        ("raw/", "raw"),
        ("[!/]x", "ax/y"),
        ("a.b", "axb"),
        ("**/pdata/**", "xpdata/1"),
    ],
)
def test_a_glob_does_not_match(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


@given(st.text("ab.*?x", min_size=1, max_size=8), st.text("abx.", min_size=1, max_size=8))
def test_on_names_a_glob_means_what_it_means_to_fnmatch(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


@given(st.text(min_size=1, max_size=30))
def test_any_pattern_either_works_or_is_refused_with_a_reason(pattern: str) -> None:
    try:
        Glob(pattern).matches(a_file("some/file.txt"))
    except PatternError as error:
        assert str(error)  # noqa: PT017  (most patterns are fine)


@pytest.mark.parametrize("pattern", ["", "raw\\*.tmp", "[z-a]", "x" * 1001])
def test_a_glob_that_cannot_work_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Glob(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(", "(?=a)b", r"(?P<x>a)\1", "(?<!a)b", "((a{100}){100}){100}", r"(\pL{0,1000}){10}", "a\ud800", "x" * 1001],
)
def test_a_regular_expression_that_is_none_or_not_linear_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Regex(pattern)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(?P<x>.*.*.*)=$", "(x+x+)+y"])
def test_patterns_that_ruin_a_backtracking_engine_do_not_grow_out_of_hand(pattern: str) -> None:
    """Python's own engine needs 2^n steps for these, so n = 65536 would outlast the universe."""
    started = time.monotonic()
    Regex(pattern).find("a" * 65535 + "!")
    assert time.monotonic() - started < 60  # the difference is between milliseconds and for ever


def test_only_groups_that_took_part_are_found() -> None:
    assert Regex(r"(?P<a>x)|(?P<b>y)").find("y") == {"b": "y"}
    assert Regex("(?P<a>x)").find("y") is None
