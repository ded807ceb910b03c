"""Downloads, on every kind of storage and over real connections."""

from __future__ import annotations

import base64
import hashlib
import http.client
import random
import shutil
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import xxhash
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from access.grants import grant
from access.models import AuditEvent, User
from harvest.api.files.serving import CopiesFailedError
from harvest.connections import prove_mounted
from harvest.models import FileRecord, FileTransfer, FileVersion, StorageLocation, path_key
from harvest.storage.base import CHUNK_BYTES, Proof
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, SMB_PASSWORD, SMB_USER, ShareFolder
from tests.harvest.api.files.conftest import FIRST, ClientOf, MakeFile
from tests.servers.web import WebServer
from tests.storage.s3_servers import CutBody, front_of

pytestmark = pytest.mark.django_db

CONTENT = random.Random(1).randbytes(2 * CHUNK_BYTES + 12345)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Store = Callable[..., FileTransfer]


@pytest.fixture
def posix(archive: StorageLocation) -> StorageLocation:
    return archive


@pytest.fixture
def cifs(samba: Any, archive_dir: ShareFolder) -> StorageLocation:
    config = {
        "host": f"{samba.host}:{samba.port}",
        "share": archive_dir.share,
        "domain": None,
        "username": SMB_USER,
        "password": SMB_PASSWORD,
    }
    return StorageLocation.objects.create(
        name="share", type="cifs", base_path=archive_dir.base_path, connection_config=config
    )


def in_bucket(endpoint_url: str, bucket: str) -> StorageLocation:
    config = {
        "bucket": bucket,
        "region": "us-east-1",
        "endpoint_url": endpoint_url,
        "access_key_id": S3_ACCESS_KEY,
        "secret_access_key": S3_SECRET_KEY,
    }
    return StorageLocation.objects.create(name="bucket", type="s3", base_path="lab", connection_config=config)


@pytest.fixture
def s3(weed: Any, bucket: str) -> StorageLocation:
    return in_bucket(weed.endpoint_url, bucket)


@pytest.fixture(params=["posix", "cifs", "s3"])
def location(request: pytest.FixtureRequest) -> StorageLocation:
    found: StorageLocation = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store() -> Store:
    """store(file, location, content) brings this content there as the way of a file would, as its newest version."""

    def store(
        file: FileRecord, location: StorageLocation, content: bytes = CONTENT, *, number: int = 1
    ) -> FileTransfer:
        sums = {"xxhash": xxhash.xxh64(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
        version, _ = FileVersion.objects.update_or_create(
            record=file,
            number=number,
            defaults={"size_bytes": len(content), "source_mtime": FIRST, "frozen_at": FIRST, **sums},
        )
        FileRecord.objects.filter(pk=file.pk).update(version_number=number, size_bytes=len(content), **sums)
        path = f"NMR/{file.source_path}.{number}"
        with location.open() as storage:
            prove_mounted(location, storage)
            staged = storage.write(path, uuid.uuid4().hex, [content])
            if not staged.published:
                if staged.proof is Proof.READ_BACK:
                    assert b"".join(storage.read_back(staged)) == content
                assert list(storage.publish([staged])) == [None]
        transfer: FileTransfer = FileTransfer.objects.create(
            record=file,
            version=version,
            scheduled_storage=location,
            storage_location=location,
            state="available",
            checksum_verified=True,
            source_checksum=sums["xxhash"],
            dest_checksum=sums["xxhash"],
            stored_path=path,
            stored_path_key=path_key(path),
            completed_at=FIRST,
            bytes_transferred=len(content),
        )
        return transfer

    return store


def body(answer: Any) -> bytes:
    """All that the answer streams."""
    return b"".join(answer.streaming_content) if answer.streaming else bytes(answer.content)


def url_of(file: FileRecord) -> str:
    return f"/api/files/{file.pk}/download"


# -------------------------------------------------------------------------------------------- what is sent, and how


def test_a_file_comes_whole_from_every_kind_of_storage(
    asking: APIClient, make_file: MakeFile, location: StorageLocation, store: Store
) -> None:
    file = make_file("run/fid")
    store(file, location)
    answer = asking.get(url_of(file))
    assert body(answer) == CONTENT
    assert answer.status_code == 200
    assert {name: answer.headers.get(name) for name in answer.headers if name not in ("Vary", "Allow")} == {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(CONTENT)),
        "Content-Disposition": 'attachment; filename="fid"',
        "ETag": f'"{SHA256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:",
        **{name: answer.headers[name] for name in ("X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy")},
    }


def test_a_part_comes_from_every_kind_of_storage(
    asking: APIClient, make_file: MakeFile, location: StorageLocation, store: Store
) -> None:
    file = make_file("run/fid")
    store(file, location)
    first, last = CHUNK_BYTES - 5, CHUNK_BYTES + 4
    answer = asking.get(url_of(file), HTTP_RANGE=f"bytes={first}-{last}")
    assert (answer.status_code, answer.headers["Content-Length"]) == (206, "10")
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert body(answer) == CONTENT[first : last + 1]


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=3-", (3, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-99", (0, 9)),
        ("bytes=8-99", (8, 9)),
        ("Bytes= 2-4 ", (2, 4)),
        (f"bytes=0-{'9' * 5000}", (0, 9)),
        (f"bytes={'0' * 5000}1-1", (1, 1)),
        # what a server may ignore
        ("bytes=4-2", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=٣-٤", None),
        ("lines=0-1", None),
        ("nonsense", None),
    ],
)
def test_one_range_of_bytes_can_be_asked_for(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store, asked: str, span: Any
) -> None:
    file = make_file("a")
    store(file, archive, b"0123456789")
    answer = asking.get(url_of(file), HTTP_RANGE=asked)
    if span is None:
        assert (answer.status_code, body(answer)) == (200, b"0123456789")
        assert "Content-Range" not in answer.headers
    else:
        first, last = span
        assert (answer.status_code, body(answer)) == (206, b"0123456789"[first : last + 1])
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/10"


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-11", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_a_range_behind_the_end_cannot_be_sent(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store, asked: str
) -> None:
    file = make_file("a")
    store(file, archive, b"0123456789")
    answer = asking.get(url_of(file), HTTP_RANGE=asked)
    assert (answer.status_code, body(answer), answer.headers["Content-Range"]) == (416, b"", "bytes */10")


def test_an_empty_file_comes_as_one(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    file = make_file("empty")
    store(file, archive, b"")
    answer = asking.get(url_of(file))
    assert (answer.status_code, answer.headers["Content-Length"], body(answer)) == (200, "0", b"")
    assert asking.get(url_of(file), HTTP_RANGE="bytes=0-").status_code == 416
    assert asking.get(url_of(file), HTTP_RANGE="bytes=-5").status_code == 200


def test_a_range_counts_only_for_what_the_client_knows(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    file = make_file("a")
    store(file, archive, b"0123456789")
    etag = asking.head(url_of(file)).headers["ETag"]
    statuses = {
        known: asking.get(url_of(file), HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE=known).status_code
        for known in (etag, '"other"', f"W/{etag}", "Sun, 01 Mar 2026 12:00:00 GMT")
    }
    assert list(statuses.values()) == [206, 200, 200, 200]
    assert asking.get(url_of(file), HTTP_IF_NONE_MATCH=etag).status_code == 304
    assert asking.get(url_of(file), HTTP_IF_MATCH='"other"').status_code == 412


def test_a_head_tells_all_and_sends_nothing(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    file = make_file("a")
    store(file, archive, b"0123456789")
    answer = asking.head(url_of(file), HTTP_RANGE="bytes=0-1")
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "10")
    assert not AuditEvent.objects.filter(action="file.downloaded").exists()


@pytest.mark.parametrize("accept", ["text/html", "image/png", "application/xml;q=0.1"])
def test_the_bytes_come_whatever_types_are_liked(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store, accept: str
) -> None:
    file = make_file("a")
    store(file, archive, b"0123456789")
    assert body(asking.get(url_of(file), HTTP_ACCEPT=accept)) == b"0123456789"


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ('a "b" \\c.txt', r'attachment; filename="a \"b\" \\c.txt"'),
        ("größe.raw", "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.raw"),
        ("a\r\nSet-Cookie: b", 'attachment; filename="a__Set-Cookie: b"'),
        ("a\n", 'attachment; filename="a_"'),
        ("\u202egnp.exe", 'attachment; filename="_gnp.exe"'),
        ("<img onerror=alert(1)>.svg", 'attachment; filename="<img onerror=alert(1)>.svg"'),
    ],
)
def test_no_name_leaves_its_header(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store, name: str, disposition: str
) -> None:
    file = make_file("safe")
    store(file, archive, b"x")
    FileRecord.objects.filter(pk=file.pk).update(filename=name)
    answer = asking.get(url_of(file))
    assert (body(answer), answer.headers["Content-Disposition"]) == (b"x", disposition)
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_a_download_is_an_audit_event(
    client_of: ClientOf, ann: User, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    file = make_file("a")
    store(file, archive, b"0123456789")
    client = client_of(ann)
    assert client.get(url_of(file)).status_code == 404
    grant([file], grantee_type="user", grantee_id=ann.pk)
    body(client.get(url_of(file)))
    body(client.get(url_of(file), HTTP_RANGE="bytes=2-4"))
    events = AuditEvent.objects.filter(action="file.downloaded").order_by("at")
    assert [event.detail["range"] for event in events] == [None, "2-4"]
    assert {(event.actor_id, event.object_id, event.ip) for event in events} == {(ann.pk, str(file.pk), "127.0.0.1")}


# ----------------------------------------------------------------------------------------- which version, which copy


def test_the_newest_stored_version_is_sent_unless_another_is_asked_for(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    file = make_file("a")
    store(file, archive, b"first", number=1)
    store(file, archive, b"second", number=2)
    FileVersion.objects.create(record=file, number=3, size_bytes=5, source_mtime=FIRST)
    assert body(asking.get(url_of(file))) == b"second"
    assert body(asking.get(f"{url_of(file)}?version=1")) == b"first"
    assert asking.get(f"{url_of(file)}?version=3").status_code == 409
    assert asking.get(f"{url_of(file)}?version=4").status_code == 404
    for wrong in ("0", "-1", "two", "", "99999999999999"):
        answer = asking.get(f"{url_of(file)}?version={wrong}")
        assert (answer.status_code, list(answer.json())) == (400, ["version"])


@pytest.mark.parametrize("state", ["discovered", "accepted", "ready", "carried", "skipped", "cancelled", "superseded"])
def test_what_is_not_verified_is_never_sent(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store, state: str
) -> None:
    file = make_file("a")
    transfer = store(file, archive, b"half")
    FileTransfer.objects.filter(pk=transfer.pk).update(state=state)
    assert asking.get(url_of(file)).status_code == 409
    assert asking.head(url_of(file)).status_code == 409


def test_a_storage_out_of_use_is_not_read(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    file = make_file("a")
    store(file, archive, b"x")
    StorageLocation.objects.update(enabled=False)
    answer = asking.get(url_of(file))
    assert answer.status_code == 409
    assert "disabled" in answer.json()["detail"]


def gone(location: StorageLocation) -> None:
    shutil.rmtree(location.base_path)


def lost(location: StorageLocation) -> None:
    shutil.rmtree(Path(location.base_path) / "NMR")


def unmounted(location: StorageLocation) -> None:
    (Path(location.base_path) / ".streamweave" / "sentinel").unlink()


def shortened(location: StorageLocation) -> None:
    (Path(location.base_path) / "NMR" / "a.1").write_bytes(b"0123")


def rotten(location: StorageLocation) -> None:
    (Path(location.base_path) / "NMR" / "a.1").write_bytes(b"0123X56789")


@pytest.mark.parametrize("broken", [gone, lost, unmounted, shortened, rotten])
def test_another_copy_is_sent_where_one_fails(
    asking: APIClient,
    make_file: MakeFile,
    archive: StorageLocation,
    second_archive: StorageLocation,
    store: Store,
    broken: Callable[[StorageLocation], None],
) -> None:
    file = make_file("a")
    for location in (archive, second_archive):
        store(file, location, b"0123456789")
    broken(archive)
    assert body(asking.get(url_of(file))) == b"0123456789"
    broken(second_archive)
    answer = asking.get(url_of(file))
    assert answer.status_code == 503
    assert archive.base_path not in answer.content.decode()


def test_a_copy_found_wrong_on_the_way_is_not_sent_to_its_end(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    file = make_file("a")
    store(file, archive)
    (Path(archive.base_path) / "NMR" / "a.1").write_bytes(b"X" + CONTENT[1:])
    answer = asking.get(url_of(file))
    received: list[bytes] = []
    with pytest.raises(CopiesFailedError):
        received.extend(answer.streaming_content)
    assert sum(map(len, received)) < len(CONTENT)


# ---------------------------------------------------------------------------------------------- real connections


@pytest.fixture
def cut_short(weed: Any, bucket: str) -> Iterator[tuple[StorageLocation, Any]]:
    """A bucket behind a server that can be told to break off, and that server."""
    with front_of(weed.endpoint_url) as front:
        yield in_bucket(front.endpoint_url, bucket), front


@pytest.fixture
def netloc(transactional_db: None, tmp_path: Path) -> Iterator[str]:
    """Where a web server of the product answers."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite's database of the tests is in the memory of this process")
    with WebServer(tmp_path / "web") as server:
        yield server.netloc


def test_a_copy_that_ends_early_breaks_the_connection(
    netloc: str, admin: User, make_file: MakeFile, cut_short: Any, store: Store
) -> None:
    location, front = cut_short
    file = make_file("a")
    store(file, location)
    front.spoil("GET", "a.1", CutBody(CHUNK_BYTES + 1000), times=1)
    front.spoil("GET", "a.1", CutBody(0), times=50)  # nor does any later attempt get further
    with asked_for(netloc, file, admin) as answer, pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) == len(CONTENT)
    assert CONTENT.startswith(broken.value.partial)


def test_another_copy_goes_on_where_one_breaks_off(
    netloc: str, admin: User, make_file: MakeFile, cut_short: Any, archive: StorageLocation, store: Store
) -> None:
    location, front = cut_short
    file = make_file("a")
    store(file, location)
    older = store(file, archive)
    FileTransfer.objects.filter(pk=older.pk).update(completed_at=FIRST.replace(year=2025))
    front.spoil("GET", "a.1", CutBody(CHUNK_BYTES + 1000), times=1)
    front.spoil("GET", "a.1", CutBody(0), times=50)
    with asked_for(netloc, file, admin) as answer:
        assert answer.read() == CONTENT


@contextmanager
def asked_for(netloc: str, file: FileRecord, user: User) -> Iterator[http.client.HTTPResponse]:
    """The answer to a download over a real connection, in the session of `user`."""
    client = Client()
    client.force_login(user, backend="access.backends.EmailBackend")
    cookie = client.cookies["sessionid"].value
    with closing(http.client.HTTPConnection(netloc, timeout=60)) as browser:
        browser.request("GET", url_of(file), headers={"Cookie": f"sessionid={cookie}"})
        with browser.getresponse() as answer:
            yield answer


def test_a_large_file_takes_little_memory(
    asking: APIClient, make_file: MakeFile, archive: StorageLocation, store: Store
) -> None:
    content = bytes(48 * CHUNK_BYTES)
    file = make_file("a")
    store(file, archive, content)
    answer = asking.get(url_of(file))
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in answer.streaming_content) == len(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * CHUNK_BYTES
