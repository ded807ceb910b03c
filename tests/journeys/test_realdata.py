"""Real instrument files, where a collection of them is at hand: harvested whole, every digest as published."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harvest.demo.servers import SambaServer, Share
from harvest.models import FileRecord, FileTransfer
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder
from tests.journeys.destinations import Destination
from tests.journeys.lab import Lab, assert_nothing_is_wrong, complaints

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared/realdata"
REAL_DATA = Path(os.environ.get("STREAMWEAVE_REALDATA", _BESIDE_THE_REPOSITORY))

pytestmark = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="there is no collection of real files; STREAMWEAVE_REALDATA names its folder"
)


@pytest.fixture(scope="module")
def truth() -> dict[str, dict[str, Any]]:
    """What is known of each file, by its path below `tree`."""
    files: dict[str, dict[str, Any]] = json.loads((REAL_DATA / "truth.json").read_text())["files"]
    return files


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    """A share that offers the collection, read-only, as it lies there."""
    folder = tmp_path_factory.mktemp("library")
    shares = {"library": Share(REAL_DATA / "tree", read_only=True)}
    with SambaServer(folder, shares, {SMB_USER: SMB_PASSWORD}) as server:
        yield server


def test_the_whole_collection_arrives_with_the_digests_that_were_published(
    db: None, library: SambaServer, truth: dict[str, dict[str, Any]], posix: Destination
) -> None:
    lab = Lab(library)
    folder = ShareFolder(REAL_DATA / "tree", "library", "/")
    schedule = lab.schedule(lab.instrument(folder, name="Library"), posix)

    run = lab.harvest(schedule)

    assert (run.status, run.files_completed, run.walk_errors) == ("completed", len(truth), 0), complaints(run)
    assert run.bytes_transferred == sum(file["bytes"] for file in truth.values())
    records = {record.source_path: record for record in FileRecord.objects.all()}
    assert records.keys() == truth.keys()
    for path, file in truth.items():
        record = records[path]
        assert (record.size_bytes, record.sha256, record.xxhash) == (file["bytes"], file["sha256"], file["xxh64"]), path
    assert posix.files() == {f"Library/{path}": (REAL_DATA / "tree" / path).read_bytes() for path in truth}
    assert FileTransfer.objects.count() == len(truth)
    assert_nothing_is_wrong()
    assert lab.harvest(schedule).files_discovered == 0
