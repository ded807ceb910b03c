from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from streamweave.lib.keys import is_key, new_key, read_or_make


def _make(path: Path) -> str:
    return read_or_make(path, new_key)


def test_processes_that_come_at_once_read_the_same_key(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for round_ in range(20):
            path = tmp_path / f"key{round_}"
            assert len(set(pool.map(_make, [path] * 8))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {f"key{round_}" for round_ in range(20)}


def test_only_the_owner_may_read_it_and_it_stays(tmp_path):
    path = tmp_path / "new" / "key"
    made = read_or_make(path, new_key)
    assert is_key(made)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_make(path, new_key) == made


def test_a_folder_that_is_none_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        read_or_make(tmp_path / "file" / "key", new_key)


@pytest.mark.parametrize("text", ["", "x", new_key()[:-1], new_key() + "=", "ä" * 43 + "=", new_key() + "\n"])
def test_what_is_no_key_is_told_from_one(text):
    assert not is_key(text)
