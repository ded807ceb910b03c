"""The files of the measurements are as many, as large and as nested as the table says."""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from tests.bench import data


def test_small_files_lie_in_611_folders_with_the_sums_that_are_told(tmp_path: Path) -> None:
    built = data.small(tmp_path / "small", files=1300, size_bytes=64)
    assert sum(1 for _ in os.walk(built.path)) == 611
    assert data.found_in(built.path) == (1300, 1300 * 64) == (built.files, built.size_bytes)
    found = {
        path.relative_to(built.path).as_posix(): xxhash.xxh64(path.read_bytes()).hexdigest()
        for path in built.path.rglob("*.dat")
    }
    assert found == built.sums
    assert len(set(found.values())) == 1300


def test_large_files_have_the_sums_that_are_told_and_no_two_blocks_alike(tmp_path: Path) -> None:
    built = data.large(tmp_path / "large", files=2, size_bytes=3 * data.MIB)
    blocks = set()
    for name, told in built.sums.items():
        content = (built.path / name).read_bytes()
        assert xxhash.xxh64(content).hexdigest() == told
        blocks |= {content[begin : begin + data.MIB] for begin in range(0, len(content), data.MIB)}
    assert len(blocks) == 6


def test_a_sparse_file_takes_no_room_and_is_not_all_zeros(tmp_path: Path) -> None:
    built = data.sparse(tmp_path / "sparse", size_bytes=5 * data.MIB + 11)
    path = built.path / "detector.raw"
    content = path.read_bytes()
    assert (len(content), content[:5], content[-4:]) == (built.size_bytes, b"first", b"last")
    assert path.stat().st_blocks * 512 < data.MIB
    assert built.sums == {"detector.raw": xxhash.xxh64(content).hexdigest()}


def test_what_is_hidden_is_not_counted_among_the_copies(tmp_path: Path) -> None:
    (tmp_path / ".streamweave").mkdir()
    (tmp_path / ".streamweave" / "sentinel").write_text("x")
    (tmp_path / "fid").write_bytes(b"decay")
    assert data.found_in(tmp_path) == (1, 5)
