"""The files that are harvested: trees of known number, size and sums, the same at every run."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

MIB = 1 << 20
GROUPS, SUBFOLDERS = 10, 60
"""Ten folders of sixty each: with the one they lie in, 611 folders."""


@dataclass(frozen=True)
class Data:
    """Files below `path`; `sums` has the xxh64 of each by its path, where they were computed."""

    path: Path
    files: int
    size_bytes: int
    sums: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.path.name


def large(path: Path, *, files: int = 4, size_bytes: int = 512 * MIB) -> Data:
    """A few large files that no compression makes smaller."""
    path.mkdir()
    block = bytearray(random.Random(1).randbytes(MIB))
    sums = {}
    for number in range(files):
        digest = xxhash.xxh64()
        name = f"acquisition{number}.raw"
        with (path / name).open("wb", buffering=0) as file:
            for part in range(size_bytes // MIB):
                block[:16] = number.to_bytes(8, "big") + part.to_bytes(8, "big")  # no two blocks are the same
                file.write(block)
                digest.update(block)
        sums[name] = digest.hexdigest()
    return Data(path, files, files * size_bytes, sums)


def small(path: Path, *, files: int = 5000, size_bytes: int = 8192) -> Data:
    """Many small files, evenly in nested folders."""
    pool = random.Random(2).randbytes(size_bytes)
    sums: dict[str, str] = {}
    for name in _nested(path, files):
        content = len(sums).to_bytes(8, "big") + pool[8:] if size_bytes >= 8 else pool
        fd = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, content)
        os.close(fd)
        sums[name] = xxhash.xxh64(content).hexdigest()
    return Data(path, files, files * size_bytes, sums)


def sparse(path: Path, *, size_bytes: int) -> Data:
    """One file that is nothing but a hole, except for its first and last bytes."""
    path.mkdir()
    with (path / "detector.raw").open("wb") as file:
        file.write(b"first")
        file.truncate(size_bytes)
        file.seek(-4, os.SEEK_END)
        file.write(b"last")
    digest, hole = xxhash.xxh64(b"first"), bytes(MIB)
    left = size_bytes - len(b"first") - len(b"last")
    for _ in range(left // MIB):
        digest.update(hole)
    digest.update(hole[: left % MIB] + b"last")
    return Data(path, 1, size_bytes, {"detector.raw": digest.hexdigest()})


def _nested(path: Path, files: int) -> Iterator[str]:
    folders = [f"project{number // SUBFOLDERS}/sample{number % SUBFOLDERS}" for number in range(GROUPS * SUBFOLDERS)]
    for folder in folders:
        (path / folder).mkdir(parents=True)
    for number in range(files):
        yield f"{folders[number % len(folders)]}/spectrum{number}.dat"


def found_in(folder: Path) -> tuple[int, int]:
    """How many files lie below `folder`, outside hidden folders, and their bytes."""
    files = size_bytes = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += len(names)
        size_bytes += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)  # noqa: PTH118 - many
    return files, size_bytes
