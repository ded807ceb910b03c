"""What the lists can be asked for, and what they refuse."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from access.grants import grant
from access.members import add_members
from access.models import FileGroupObjectPermission, Group, Project, User
from harvest.models import FileRecord, HarvestRun, Instrument, StorageLocation
from tests.harvest.api.files.conftest import FIRST, ClientOf, MakeFile, MakeTransfer, completed

pytestmark = pytest.mark.django_db


def names(client: APIClient, **query: Any) -> list[str]:
    """The paths of the files that answer the query, sorted."""
    answer = client.get(f"/api/files?{urlencode(query)}")
    assert answer.status_code == 200, answer.json()
    return sorted(file["source_path"] for file in answer.json())


@pytest.fixture
def files(make_file: MakeFile, ann: User) -> dict[str, FileRecord]:
    facts: dict[str, dict[str, Any]] = {
        "20260115_glucose_1H/fid": {"size_bytes": 100, "metadata": {"compound": "glucose", "scans": 16}},
        "20260115_glucose_1H/pdata/1/1R": {"size_bytes": 200, "metadata": {"compound": "glucose", "scans": 16.0}},
        "20260201_alanine_13C/fid": {"size_bytes": 300, "metadata": {"scans": "16", "hot": True, "note": None}},
        "100%_done/a_b.txt": {"size_bytes": 400, "source_mtime": FIRST + timedelta(days=1)},
        "1000_done/aXb.TXT": {"size_bytes": 500, "owner": ann, "xxhash": "ab" * 8, "sha256": "cd" * 32},
    }
    return {path: make_file(path, **fields) for path, fields in facts.items()}


GLUCOSE = ["20260115_glucose_1H/fid", "20260115_glucose_1H/pdata/1/1R"]
ALANINE = ["20260201_alanine_13C/fid"]
PERCENT, THOUSAND = ["100%_done/a_b.txt"], ["1000_done/aXb.TXT"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"path": "20260115_glucose_1H/"}, GLUCOSE),
        ({"path": "20260115_GLUCOSE"}, []),
        ({"path": "100%"}, PERCENT),
        ({"path": "100_"}, []),
        ({"path": "x" * 250}, []),
        ({"name": "fid"}, [GLUCOSE[0], *ALANINE]),
        ({"name": "FID"}, [GLUCOSE[0], *ALANINE]),
        ({"name": "1?"}, GLUCOSE[1:]),
        ({"name": "*.txt"}, [*PERCENT, *THOUSAND]),
        ({"name": "a_b*"}, PERCENT),
        ({"name": "a\\b"}, []),
        ({"name": "i"}, []),
        ({"q": "GLUCOSE 1r"}, GLUCOSE[1:]),
        ({"q": "0%_"}, PERCENT),
        ({"q": "glucose alanine"}, []),
        ({"min_size_bytes": 300, "max_size_bytes": 400}, [*PERCENT, *ALANINE]),
        ({"min_size_bytes": 2**63 - 1}, []),
        ({"modified_from": "2026-03-02T12:00:00Z"}, PERCENT),
        ({"modified_until": "2026-03-01T12:00:00Z"}, []),
        ({"discovered_from": "2026-03-01T13:04:00+01:00"}, THOUSAND),
        ({"discovered_until": "2026-03-01T12:01:00Z"}, GLUCOSE[:1]),
        ({"metadata.compound": "glucose"}, GLUCOSE),
        ({"metadata.compound": "Glucose"}, []),
        ({"metadata.scans": "16"}, [*GLUCOSE, *ALANINE]),
        ({"metadata.hot": "true"}, ALANINE),
        ({"metadata.note": "null"}, ALANINE),
        ({"metadata.hot": "1"}, []),
        ({"metadata.compound": "glucose", "name": "fid"}, GLUCOSE[:1]),
        ({"metadata.compound__contains": "glu"}, []),
        ({'metadata.it\'s "odd"': "NaN"}, []),
        ({"metadata.n": "9" * 400}, []),
        ({"metadata.n": "9" * 30}, []),
        ({"checksum": "AB" * 8}, THOUSAND),
        ({"checksum": "cd" * 32}, THOUSAND),
        ({"is_current": "false"}, []),
        ({"instrument_id": uuid.UUID(int=1)}, []),
    ],
)
def test_files_are_found_by(asking: APIClient, files: dict[str, FileRecord], query: Any, found: list[str]) -> None:
    assert names(asking, **query) == sorted(found)


def test_files_are_found_by_what_they_belong_to(
    asking: APIClient, files: dict[str, FileRecord], instrument: Instrument, ann: User, make_file: MakeFile
) -> None:
    other = Instrument.objects.create(name="MS", cifs_host="ms.example.org", cifs_share="ms")
    mine = make_file("ms.raw", instrument=other)
    assert names(asking, instrument_id=other.pk) == ["ms.raw"]
    assert len(names(asking, instrument_id=instrument.pk)) == len(files)
    assert names(asking, owner_id=ann.pk) == THOUSAND
    without_slash = mine.persistent_id.replace("ark:/", "ark:")
    for query in ({"ark": mine.persistent_id}, {"persistent_id": without_slash}, {"q": without_slash}):
        assert names(asking, **query) == ["ms.raw"]


def test_files_are_found_by_one_transfer_that_is_all_that_is_asked(
    asking: APIClient,
    files: dict[str, FileRecord],
    archive: StorageLocation,
    second_archive: StorageLocation,
    instrument: Instrument,
    make_transfer: MakeTransfer,
) -> None:
    run = HarvestRun.objects.create(instrument=instrument, storage_location=archive)
    fid, *_ = files.values()
    make_transfer(fid, run=run, **completed("a"))
    make_transfer(fid, to=second_archive, given_up=True)
    make_transfer(files[ALANINE[0]])
    assert names(asking, storage_location_id=archive.pk) == [GLUCOSE[0], *ALANINE]
    assert names(asking, storage_location_id=second_archive.pk) == GLUCOSE[:1]
    assert names(asking, run_id=run.pk) == GLUCOSE[:1]
    assert names(asking, status="failed") == GLUCOSE[:1]
    assert names(asking, status="failed", storage_location_id=archive.pk) == []
    assert names(asking, status="pending") == ALANINE


def test_files_are_found_by_the_group_or_project_they_are_granted_to(
    asking: APIClient, client_of: ClientOf, files: dict[str, FileRecord], ann: User
) -> None:
    group, project = Group.objects.create(name="Core"), Project.objects.create(name="Study")
    grant([files[GLUCOSE[0]]], grantee_type="group", grantee_id=group.pk)
    grant([files[GLUCOSE[1]]], grantee_type="project", grantee_id=project.pk)
    assert names(asking, group_id=group.pk) == GLUCOSE[:1]
    assert names(asking, project_id=project.pk) == GLUCOSE[1:]
    assert names(asking, project_id=group.pk) == []
    # ann sees both files, and learns nothing about the project that is not hers
    add_members(to=group, members=[ann])
    grant([files[GLUCOSE[1]]], grantee_type="user", grantee_id=ann.pk)
    client = client_of(ann)
    assert names(client) == GLUCOSE
    assert names(client, group_id=group.pk) == GLUCOSE[:1]
    assert names(client, project_id=project.pk) == names(client, project_id=uuid.uuid4()) == []
    assert client.get(f"/api/files?project_id={project.pk}&count=true").headers["X-Total-Count"] == "0"


@pytest.mark.parametrize("path", ["/api/files", "/api/transfers"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("instrument_id=nmr", "instrument_id"),
        ("instrument_id=", "instrument_id"),
        ("storage_location_id=1", "storage_location_id"),
        ("run_id=x", "run_id"),
        ("status=done", "status"),
        ("checksum=abc", "checksum"),
        ("colour=red", "colour"),
        ("status=failed&status=pending", "status"),
        ("limit=0", "limit"),
        ("limit=5001", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e3", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=bnVsbA", "cursor"),
        ("ordering=owner__password", "ordering"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(asking: APIClient, path: str, query: str, field: str) -> None:
    answer = asking.get(f"{path}?{query}")
    assert (answer.status_code, list(answer.json())) == (400, [field])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("min_size_bytes=-1", "min_size_bytes"),
        ("max_size_bytes=9223372036854775808", "max_size_bytes"),
        ("min_size_bytes=much", "min_size_bytes"),
        ("modified_from=yesterday", "modified_from"),
        ("modified_from=9999-12-31T23:59:59-12:00", "modified_from"),
        ("discovered_until=2026-02-30T00:00:00Z", "discovered_until"),
        ("path=", "path"),
        ("path=a%00b", "path"),
        ("name=%00", "name"),
        ("name=" + "x" * 256, "name"),
        ("q=a%00b", "q"),
        ("q=%20", "q"),
        ("q=" + "+".join("abcdefghijk"), "q"),
        ("metadata.=1", "metadata."),
        ("metadata.a=%00", "metadata.a"),
        ("metadata." + "k" * 300 + "=1", "metadata." + "k" * 300),
        ("metadata.a=1&metadata.a=2", "metadata.a"),
        ("is_current=perhaps", "is_current"),
        ("project_id=all", "project_id"),
        ("group_id=%7B%7D", "group_id"),
        ("owner_id=me", "owner_id"),
        ("persistent_id=" + "a" * 101, "persistent_id"),
    ],
)
def test_what_cannot_be_meant_of_files_is_refused_by_name(asking: APIClient, query: str, field: str) -> None:
    answer = asking.get(f"/api/files?{query}")
    assert (answer.status_code, list(answer.json())) == (400, [field])


@given(text=st.text(max_size=30), key=st.text(min_size=1, max_size=10))
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_text_breaks_a_search(asking: APIClient, make_file: MakeFile, text: str, key: str) -> None:
    for name in ("path", "name", "q", "ark", "checksum", "cursor", f"metadata.{key}", key):
        query = urlencode({name: text}, errors="replace")
        assert asking.get(f"/api/files?{query}").status_code in (200, 400)


@given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_name_finds_its_own_file(asking: APIClient, make_file: MakeFile, name: str) -> None:
    file = make_file(f"{uuid.uuid4()}/{name}", metadata={"name": name})
    folder = file.source_path.partition("/")[0]
    assert names(asking, path=file.source_path) == [file.source_path]
    assert names(asking, path=folder, name=name) == [file.source_path]
    assert names(asking, **{"path": folder, "metadata.name": name}) == [file.source_path]


def test_what_has_expired_is_not_granted_to_a_project(asking: APIClient, files: dict[str, FileRecord]) -> None:
    project = Project.objects.create(name="Study")
    grant([files[GLUCOSE[0]]], grantee_type="project", grantee_id=project.pk)
    FileGroupObjectPermission.rows.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert names(asking, project_id=project.pk) == []
