"""The S3 kind on a strict server (SeaweedFS), on a weak one (rclone) and behind a front that spoils the exchange."""

from __future__ import annotations

import json
import random
import socket
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from harvest.demo.servers import SeaweedServer
from harvest.storage.base import RESERVED, Entry, Fault, Proof, Staged, StorageError, Unreadable
from harvest.storage.s3 import S3Storage
from harvest.storage.s3 import claiming as claiming_module
from harvest.storage.s3 import multipart as multipart_module
from harvest.storage.s3 import storage as storage_module
from harvest.storage.s3.capabilities import Capabilities
from harvest.storage.s3.errors import classify
from harvest.storage.s3.many import MOST_BYTES
from harvest.storage.s3.multipart import MOST_PARTS, in_parts, part_bytes
from tests.storage.s3_servers import Answer, CutBody, FlipByte, Front, LoseAnswer, RcloneServer, front_of

MIB = 1 << 20
BUCKET = "instruments"
ACCESS_KEY = "devkey"
SECRET_KEY = "devsecret1"

Open = Callable[..., S3Storage]


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    folder = tmp_path_factory.mktemp("rclone")
    with RcloneServer(folder, access_key=ACCESS_KEY, secret_key=SECRET_KEY, bucket=BUCKET) as server:
        yield server


@pytest.fixture
def base_path() -> str:
    """A base path of its own for each test."""
    return f"lab/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def open_s3(base_path: str) -> Iterator[Open]:
    """Opens storages, which are closed at the end of the test."""
    opened: list[S3Storage] = []

    def open_storage(server: SeaweedServer | RcloneServer | Front, base: str | None = None, **more: str) -> S3Storage:
        storage = S3Storage.from_config(base_path if base is None else base, config_of(server.endpoint_url, **more))
        storage.connect()
        opened.append(storage)
        return storage

    yield open_storage
    for storage in opened:
        storage.close()


@pytest.fixture
def storage(weed: SeaweedServer, open_s3: Open) -> S3Storage:
    return open_s3(weed)


@pytest.fixture
def front(weed: SeaweedServer) -> Iterator[Front]:
    with front_of(weed.endpoint_url) as front:
        yield front


@pytest.fixture
def fronted(front: Front, open_s3: Open) -> S3Storage:
    """A storage behind the front that knows already what the server can do."""
    storage = open_s3(front)
    assert storage.capabilities.proves
    return storage


def config_of(endpoint_url: str, **more: str) -> dict[str, Any]:
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    return {"bucket": BUCKET, "region": "us-east-1", "endpoint_url": endpoint_url, **keys, **more}


def content_of(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), MIB):
        yield content[start : start + MIB]


def put(storage: S3Storage, path: str, content: bytes, token: str = "attempt-1") -> Staged:
    staged = storage.write(path, token, pieces(content))
    assert list(storage.publish([staged])) == [None]
    return staged


def read(storage: S3Storage, path: str, offset: int = 0) -> bytes:
    return b"".join(storage.read(path, offset=offset))


def keys_in(server: SeaweedServer, prefix: str) -> set[str]:
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {found["Key"] for page in pages for found in page.get("Contents", ())}


def uploads_in(server: SeaweedServer, prefix: str) -> list[str]:
    answer = server.client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    return [upload["Key"] for upload in answer.get("Uploads", ())]


def paths_in(storage: S3Storage, top: str = "") -> list[str]:
    return [found.path for found in storage.walk(top)]


# ------------------------------------------------------------------------------------------------------ small files


@pytest.mark.parametrize("size_bytes", [0, 1, 8 * MIB])
def test_a_small_file_is_published_by_one_put_that_the_server_verified(storage: S3Storage, size_bytes: int) -> None:
    content = content_of(size_bytes)
    staged = storage.write("nmr/a.fid", "attempt-1", pieces(content))
    assert (staged.published, staged.proof, staged.size_bytes) == (True, Proof.BY_STORE, size_bytes)
    assert read(storage, "nmr/a.fid") == content
    assert b"".join(storage.read_back(staged)) == content
    assert storage.token_of("nmr/a.fid") == "attempt-1"
    assert list(storage.publish([staged])) == [None]


def test_a_small_file_never_replaces_one(storage: S3Storage) -> None:
    put(storage, "nmr/a.fid", b"first")
    with pytest.raises(StorageError, match="taken") as caught:
        storage.write("nmr/a.fid", "attempt-2", [b"second"])
    assert caught.value.fault is Fault.EXISTS
    assert read(storage, "nmr/a.fid") == b"first"
    assert storage.token_of("nmr/a.fid") == "attempt-1"


def test_read_back_refuses_the_object_of_another_attempt(storage: S3Storage) -> None:
    staged = put(storage, "a", b"first")
    storage.delete("a")
    put(storage, "a", b"first", token="attempt-2")
    with pytest.raises(StorageError) as caught:
        b"".join(storage.read_back(staged))
    assert caught.value.fault is Fault.NOT_FOUND
    adopted = Staged("", "a", 5, Proof.READ_BACK_PUBLISHED, published=True)
    assert b"".join(storage.read_back(adopted)) == b"first"


def test_discard_takes_back_a_published_object_only_where_it_is_the_attempts_own(storage: S3Storage) -> None:
    staged = put(storage, "a", b"first")
    storage.discard("object:another-attempt", "a")
    storage.discard("", "a")
    storage.discard(staged.ref, "")
    assert read(storage, "a") == b"first"
    storage.discard(staged.ref, "a")
    storage.discard(staged.ref, "a")
    assert storage.token_of("a") is None
    assert paths_in(storage) == []


def test_a_source_that_breaks_leaves_no_small_object(storage: S3Storage) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"begun"
        raise OSError("the share went away")

    with pytest.raises(OSError, match="went away"):
        storage.write("a", "attempt-1", breaking())
    assert paths_in(storage) == []


# ------------------------------------------------------------------------------------------------------ large files


def test_a_large_file_stays_invisible_until_it_is_published(
    storage: S3Storage, weed: SeaweedServer, open_s3: Open
) -> None:
    content = content_of(20 * MIB + 3)
    staged = storage.write("ms/run.raw", "attempt-1", pieces(content))
    assert (staged.published, staged.proof, staged.size_bytes) == (False, Proof.BY_STORE, len(content))
    assert paths_in(storage) == []
    storage.make_durable([staged])
    later = open_s3(weed)  # another process goes on from the ref alone
    assert list(later.publish([staged])) == [None]
    assert read(later, "ms/run.raw") == b"".join(later.read_back(staged)) == content
    assert later.token_of("ms/run.raw") == "attempt-1"
    assert list(later.publish([staged])) == [None], "publishing once more finds its own object and is content"


def test_a_large_file_never_replaces_one_and_can_be_published_when_the_name_is_free(storage: S3Storage) -> None:
    put(storage, "a", b"first")
    content = content_of(9 * MIB)
    staged = storage.write("a", "attempt-2", pieces(content))
    (error,) = storage.publish([staged])
    assert error is not None
    assert error.fault is Fault.EXISTS
    assert read(storage, "a") == b"first"
    storage.delete("a")
    assert list(storage.publish([staged])) == [None]
    assert read(storage, "a") == content


def test_of_two_uploads_completed_at_the_same_moment_the_first_is_never_replaced(
    weed: SeaweedServer, open_s3: Open
) -> None:
    both_ready = threading.Barrier(2)
    storages = [open_s3(weed), open_s3(weed)]
    contents = [content_of(8 * MIB + 1), content_of(8 * MIB + 2)]

    def publish(which: int) -> list[bool]:
        names = [f"{number}" for number in range(12)]
        staged = [storages[which].write(name, f"attempt-{which}-{name}", [contents[which]]) for name in names]
        outcomes = []
        for item in staged:
            both_ready.wait(timeout=60)
            (error,) = storages[which].publish([item])
            assert error is None or error.fault is Fault.EXISTS
            outcomes.append(error is None)
        return outcomes

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(publish, (0, 1))
    assert [not won for won in first] == second
    assert [storages[0].stat(f"{number}").size_bytes for number in range(12)] == [
        len(contents[0 if won else 1]) for won in first
    ]


def test_a_name_that_another_attempt_is_publishing_to_is_waited_for(
    storage: S3Storage, weed: SeaweedServer, base_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming_module, "WAITS_SECONDS", (0.01, 0.01))
    staged = storage.write("a", "attempt-1", pieces(content_of(9 * MIB)))
    with storage._writer.claim("a", "attempt-2"):
        (error,) = storage.publish([staged])
        assert error is not None
        assert (error.fault, error.permanent) == (Fault.LOCKED, False)
        monkeypatch.setattr(claiming_module, "STALE_AFTER", timedelta(seconds=-1))
        assert list(storage.publish([staged])) == [None], "the claim of a dead attempt lapses"
    assert keys_in(weed, base_path) == {f"{base_path}/a", f"{base_path}/{RESERVED}/capabilities.json"}


def test_the_claim_of_an_attempt_that_crashed_is_its_own_when_it_goes_on(
    storage: S3Storage,
) -> None:
    staged = storage.write("a", "attempt-1", pieces(content_of(9 * MIB)))
    with storage._writer.claim("a", "attempt-1"):
        assert list(storage.publish([staged])) == [None]


def test_one_item_that_cannot_be_published_does_not_stop_the_others(storage: S3Storage) -> None:
    gone = storage.write("gone", "attempt-1", pieces(content_of(9 * MIB)))
    storage.discard(gone.ref, "gone")
    good = storage.write("good", "attempt-1", pieces(content_of(9 * MIB)))
    first, second = storage.publish([gone, good])
    assert first is not None
    assert first.fault is Fault.NOT_FOUND
    assert second is None
    assert paths_in(storage) == ["good"]


def test_an_upload_that_lacks_a_part_is_not_published(storage: S3Storage) -> None:
    staged = storage.write("a", "attempt-1", pieces(content_of(17 * MIB)))
    short = Staged(staged.ref, staged.path, staged.size_bytes + 1, staged.proof)
    (error,) = storage.publish([short])
    assert error is not None
    assert error.fault is Fault.NOT_FOUND
    assert "parts are missing" in str(error)
    assert paths_in(storage) == []


def test_a_source_that_breaks_leaves_neither_object_nor_upload(
    storage: S3Storage, weed: SeaweedServer, base_path: str
) -> None:
    def breaking() -> Iterator[bytes]:
        yield from pieces(content_of(20 * MIB))
        assert uploads_in(weed, base_path) == [f"{base_path}/a"]
        raise OSError("the share went away")

    with pytest.raises(OSError, match="went away"):
        storage.write("a", "attempt-1", breaking())
    assert paths_in(storage) == []
    assert uploads_in(weed, base_path) == []


def test_a_file_larger_than_the_parts_allow_fails_for_good(
    storage: S3Storage, weed: SeaweedServer, base_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart_module, "MOST_PARTS", 2)
    with pytest.raises(StorageError, match="larger than") as caught:
        storage.write("a", "attempt-1", pieces(content_of(17 * MIB)))
    assert caught.value.permanent
    assert uploads_in(weed, base_path) == []


def test_parts_grow_so_that_more_than_a_tebibyte_fits() -> None:
    sizes = [part_bytes(number) for number in range(1, MOST_PARTS + 1)]
    assert sum(sizes) == 1_528_000 * MIB
    assert max(sizes) == 256 * MIB
    assert sizes == sorted(sizes)
    assert min(sizes) >= 5 * MIB, "Amazon S3 takes no smaller part but the last"


@pytest.mark.parametrize("chunk_bytes", [MIB - 7, 3 * MIB, 20 * MIB])
def test_chunks_of_any_size_are_cut_into_parts_without_loss(chunk_bytes: int) -> None:
    content = content_of(25 * MIB)
    parts = list(in_parts(content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)))
    assert b"".join(parts) == content
    assert [len(part) for part in parts] == [8 * MIB, 8 * MIB, 8 * MIB, MIB]


def test_memory_stays_flat_while_a_large_file_passes(storage: S3Storage) -> None:
    chunk = content_of(MIB)
    assert storage.capabilities.proves
    tracemalloc.start()
    try:
        staged = storage.write("big.raw", "attempt-1", (chunk for _ in range(200)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert staged.size_bytes == 200 * MIB
    assert peak_bytes < 2 * MOST_BYTES, "what is under way, a part being gathered, and what awaits the collector"
    storage.discard(staged.ref, staged.path)


def test_uploads_of_dead_attempts_are_left_over_until_they_are_discarded(
    storage: S3Storage, weed: SeaweedServer, base_path: str
) -> None:
    dead = storage.write("a/b: c.raw", "attempt-1", pieces(content_of(9 * MIB)))
    put(storage, "published", content_of(9 * MIB), token="attempt-2")
    put(storage, "small", b"content", token="attempt-3")
    assert list(storage.leftovers()) == [(dead.ref, "attempt-1")]
    storage.discard(dead.ref, "")
    storage.discard(dead.ref, "")
    assert list(storage.leftovers()) == []
    assert uploads_in(weed, base_path) == []


def test_an_upload_is_left_over_even_before_its_last_part(
    storage: S3Storage, open_s3: Open, weed: SeaweedServer
) -> None:
    def looking() -> Iterator[bytes]:
        yield from pieces(content_of(20 * MIB))
        assert [token for _, token in open_s3(weed).leftovers()] == ["attempt-1"]

    storage.write("a", "attempt-1", looking())


def test_clearing_left_overs_never_touches_what_was_published(front: Front, fronted: S3Storage) -> None:
    content = content_of(9 * MIB)
    staged = fronted.write("a", "attempt-1", pieces(content))
    front.spoil("DELETE", "attempt-1", Answer(403, b"<Error><Code>AccessDenied</Code></Error>"))
    (error,) = fronted.publish([staged])
    assert error is not None, "the note of the upload could not be removed"
    ((ref, token),) = fronted.leftovers()
    assert (ref, token) == (staged.ref, "attempt-1")
    fronted.discard(ref, "")
    assert list(fronted.leftovers()) == []
    assert read(fronted, "a") == content
    assert list(fronted.publish([staged])) == [None]


# -------------------------------------------------------------------------------------------------- what goes wrong


def test_bytes_damaged_on_the_way_are_refused_and_nothing_is_stored(front: Front, fronted: S3Storage) -> None:
    front.spoil("PUT", "/a", FlipByte())
    with pytest.raises(StorageError) as caught:
        fronted.write("a", "attempt-1", [b"content"])
    assert (caught.value.fault, caught.value.permanent) == (Fault.IO, False)
    assert paths_in(fronted) == []
    assert put(fronted, "a", b"content").published


def test_a_damaged_part_is_refused_and_the_upload_given_up(
    front: Front, fronted: S3Storage, weed: SeaweedServer, base_path: str
) -> None:
    front.spoil("PUT", "partNumber=2", FlipByte())
    with pytest.raises(StorageError) as caught:
        fronted.write("a", "attempt-1", pieces(content_of(20 * MIB)))
    assert caught.value.fault is Fault.IO
    assert uploads_in(weed, base_path) == []


def test_a_put_whose_answer_was_lost_is_known_again_as_ours(front: Front, fronted: S3Storage) -> None:
    front.spoil("PUT", "/a", LoseAnswer())
    staged = fronted.write("a", "attempt-1", [b"content"])
    assert staged.published
    assert read(fronted, "a") == b"content"
    assert sum(line.startswith("PUT") and line.endswith("/a") for line in front.seen) == 2


def test_a_completion_whose_answer_was_lost_is_known_again_as_ours(front: Front, fronted: S3Storage) -> None:
    content = content_of(9 * MIB)
    staged = fronted.write("a", "attempt-1", pieces(content))
    front.spoil("POST", "uploadId", LoseAnswer())
    assert list(fronted.publish([staged])) == [None]
    assert read(fronted, "a") == content


def test_a_busy_server_is_asked_again(front: Front, fronted: S3Storage) -> None:
    front.spoil("PUT", "/a", Answer(503, b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"))
    assert put(fronted, "a", b"content").published
    front.spoil("PUT", "/b", Answer(503, b"<Error><Code>SlowDown</Code></Error>"), times=3)
    with pytest.raises(StorageError, match="busy") as caught:
        fronted.write("b", "attempt-1", [b"content"])
    assert (caught.value.fault, caught.value.permanent, caught.value.whole_storage) == (Fault.IO, False, False)


def test_success_without_storing_is_no_success(
    front: Front, fronted: S3Storage, weed: SeaweedServer, base_path: str
) -> None:
    front.spoil("PUT", "/a", Answer(200))
    with pytest.raises(StorageError, match="no ETag") as caught:
        fronted.write("a", "attempt-1", [b"content"])
    assert (caught.value.fault, caught.value.permanent) == (Fault.IO, False)
    front.spoil("PUT", "partNumber=1", Answer(200))
    with pytest.raises(StorageError, match="no ETag"):
        fronted.write("b", "attempt-1", pieces(content_of(9 * MIB)))
    assert uploads_in(weed, base_path) == []
    front.spoil("PUT", RESERVED, Answer(200))
    with pytest.raises(StorageError, match="no ETag"):
        fronted.write_reserved("sentinel", b"content")


def test_a_completion_that_stored_nothing_is_no_success(front: Front, fronted: S3Storage) -> None:
    staged = fronted.write("a", "attempt-1", pieces(content_of(9 * MIB)))
    done = b'<CompleteMultipartUploadResult><Key>a</Key><ETag>"x-2"</ETag></CompleteMultipartUploadResult>'
    front.spoil("POST", "uploadId", Answer(200, done))
    (error,) = fronted.publish([staged])
    assert error is not None
    assert error.fault is Fault.NOT_FOUND
    assert paths_in(fronted) == []


def test_a_completion_that_fails_after_its_200_is_no_success(front: Front, fronted: S3Storage) -> None:
    staged = fronted.write("a", "attempt-1", pieces(content_of(9 * MIB)))
    failed = b"<Error><Code>InternalError</Code><Message>We encountered an internal error</Message></Error>"
    front.spoil("POST", "uploadId", Answer(200, failed), times=3)
    (error,) = fronted.publish([staged])
    assert error is not None
    assert (error.fault, error.permanent) == (Fault.IO, False)
    assert paths_in(fronted) == []
    assert list(fronted.publish([staged])) == [None]


def test_a_body_that_breaks_off_is_taken_up_again(front: Front, fronted: S3Storage) -> None:
    content = content_of(5 * MIB)
    put(fronted, "a", content)
    front.spoil("GET", "/a", CutBody(MIB + 5), times=3)
    assert read(fronted, "a") == content
    front.spoil("GET", "/a", CutBody(0))
    assert read(fronted, "a", offset=7) == content[7:]


def test_a_body_that_always_breaks_off_is_an_error_and_no_short_file(front: Front, fronted: S3Storage) -> None:
    put(fronted, "a", content_of(5 * MIB))
    front.spoil("GET", "/a", CutBody(10), times=50)
    with pytest.raises(StorageError) as caught:
        read(fronted, "a")
    assert (caught.value.fault, caught.value.permanent) == (Fault.IO, False)


def test_an_object_replaced_while_it_is_read_is_not_spliced(
    front: Front, fronted: S3Storage, weed: SeaweedServer, base_path: str
) -> None:
    put(fronted, "a", content_of(5 * MIB))
    front.spoil("GET", "/a", CutBody(2 * MIB))
    reading = fronted.read("a")
    next(reading)
    weed.client().put_object(Bucket=BUCKET, Key=f"{base_path}/a", Body=content_of(6 * MIB))
    with pytest.raises(StorageError) as caught:
        list(reading)
    assert caught.value.fault is Fault.CHANGED


def test_a_server_that_cannot_read_from_the_middle_is_not_believed(front: Front, fronted: S3Storage) -> None:
    put(fronted, "a", b"content")
    front.spoil("GET", "/a", Answer(200, b"content", {"ETag": '"x"'}))
    with pytest.raises(StorageError, match="Range"):
        read(fronted, "a", offset=3)


# ------------------------------------------------------------------------------------------------- looking around


def test_reading_starts_where_it_is_told(storage: S3Storage) -> None:
    content = content_of(3 * MIB)
    put(storage, "a", content)
    for offset in (0, 1, 2 * MIB + 1, len(content) - 1, len(content), len(content) + 9):
        assert read(storage, "a", offset) == content[offset:]
    assert max(map(len, storage.read("a"))) <= MIB


def test_what_is_not_there_is_not_found(storage: S3Storage) -> None:
    put(storage, "folder/file", b"content")
    for path in ("nothing", "folder", "folder/file/below"):
        with pytest.raises(StorageError) as caught:
            storage.stat(path)
        assert caught.value.fault is Fault.NOT_FOUND
        with pytest.raises(StorageError) as caught:
            read(storage, path)
        assert caught.value.fault is Fault.NOT_FOUND
        assert storage.token_of(path) is None
        storage.delete(path)
    assert read(storage, "folder/file") == b"content"


def test_walk_and_stat_agree_and_leave_out_what_is_ours(
    storage: S3Storage, weed: SeaweedServer, base_path: str
) -> None:
    for path in ("b/2", "b/1", "a", "b.c/1", "b/d/e"):
        put(storage, path, path.encode())
    storage.write_reserved("sentinel", b"here")
    weed.client().put_object(Bucket=BUCKET, Key=f"{base_path}/empty folder/", Body=b"")
    weed.client().put_object(Bucket=BUCKET, Key=f"{base_path}-neighbour/x", Body=b"not ours")
    found = list(storage.walk())
    assert {entry.path for entry in found} == {"a", "b/1", "b/2", "b.c/1", "b/d/e"}
    assert found == [storage.stat(entry.path) for entry in found]
    assert all(isinstance(entry, Entry) and entry.modified_at.utcoffset() == timedelta() for entry in found)
    assert paths_in(storage, "b") == ["b/1", "b/2", "b/d/e"]
    assert paths_in(storage, "nothing") == []
    assert [entry.path for entry in storage.walk(recursive=False)] == ["a"]
    assert [entry.path for entry in storage.walk("b", recursive=False)] == ["b/1", "b/2"]


def test_walk_goes_on_over_pages(storage: S3Storage) -> None:
    for number in range(7):
        put(storage, f"{number}", b"x")
    listing = storage._bucket.client.list_objects_v2
    storage._bucket.client.list_objects_v2 = lambda **more: listing(**more, MaxKeys=3)  # type: ignore[method-assign]
    assert paths_in(storage) == [f"{number}" for number in range(7)]


def test_keys_that_are_no_paths_are_reported_and_the_walk_goes_on(
    front: Front, fronted: S3Storage, base_path: str
) -> None:
    keys = ["good", "double//slash", "up/../x", "./dot", "file/", "back%5Cslash", "tab%09b", "last"]
    contents = "".join(
        f"<Contents><Key>{base_path}/{key}</Key><Size>1</Size><LastModified>2026-01-02T03:04:05.678Z</LastModified></Contents>"
        for key in keys
    )
    head = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
    listing = f"<ListBucketResult>{head}{contents}</ListBucketResult>".encode()
    front.spoil("GET", "list-type=2", Answer(200, listing))
    found = list(fronted.walk())
    assert [item.path for item in found if isinstance(item, Entry)] == ["good", "tab\tb", "last"]
    refused = [item for item in found if isinstance(item, Unreadable)]
    assert [item.path for item in refused] == ["double//slash", "up/../x", "./dot", "file/", "back\\slash"]
    assert {item.error.fault for item in refused} == {Fault.NAME}
    assert found[0].modified_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # type: ignore[union-attr]


def test_paths_that_servers_would_change_are_refused(storage: S3Storage) -> None:
    for path in ("", "/a", "a/", "a//b", "../a", "a/./b", "a\\b"):
        with pytest.raises(StorageError) as caught:
            storage.write(path, "attempt-1", [b"content"])
        assert caught.value.fault is Fault.NAME


def test_names_come_back_as_they_were_stored(storage: S3Storage) -> None:
    names = [
        "a b", "+", "%25", "%", "é", "e\u0301", "\U0001f9ea", "&<>\"'", "?x=1#y", "~!@$^*()_-={}[];:,.", "|", "`",
        "trailing ", "trailing.", " leading",
        "tab\tnewline\n", "\x01", "..", "\udcff", "CON", "ａ", "l" * 255,
    ]  # fmt: skip
    stored = {storage.stored_path(f"n/{name}") for name in names}
    assert len(stored) == len(names)
    for path in stored:
        put(storage, path, path.encode())
    assert set(paths_in(storage)) == stored
    for path in stored:
        assert read(storage, path) == path.encode()


def test_a_path_longer_than_a_key_may_be_is_refused_beforehand(storage: S3Storage, base_path: str) -> None:
    room = 1024 - len(f"{base_path}/")
    longest = "/".join(["é" * 100] * 4) + "/" + "x" * (room - 4 * 201)
    assert storage.stored_path(longest) == longest
    with pytest.raises(StorageError, match="1024") as caught:
        storage.stored_path(longest + "x")
    assert (caught.value.fault, caught.value.permanent) == (Fault.NAME, True)


def test_a_name_longer_than_this_server_holds_is_a_matter_of_names(storage: S3Storage) -> None:
    with pytest.raises(StorageError) as caught:
        storage.write("l" * 300, "attempt-1", [b"content"])
    assert (caught.value.fault, caught.value.path) == (Fault.NAME, "l" * 300)


def test_the_base_path_may_be_empty(weed: SeaweedServer, open_s3: Open, base_path: str) -> None:
    whole = open_s3(weed, "/")
    put(whole, f"{base_path}/a", b"content")
    assert paths_in(whole, base_path) == [f"{base_path}/a"]
    assert read(open_s3(weed), "a") == b"content"


def test_our_own_files_are_replaced_whole(storage: S3Storage, weed: SeaweedServer, base_path: str) -> None:
    assert storage.read_reserved("manifests/run.json") is None
    storage.write_reserved("manifests/run.json", b"one")
    storage.write_reserved("manifests/run.json", b"two")
    assert storage.read_reserved("manifests/run.json") == b"two"
    assert keys_in(weed, base_path) == {f"{base_path}/{RESERVED}/manifests/run.json"}


# ---------------------------------------------------------------------------------------------- what a server can do


def test_a_strict_server_is_found_out_once_and_remembered(
    storage: S3Storage, weed: SeaweedServer, open_s3: Open, base_path: str
) -> None:
    assert storage.capabilities == Capabilities("sha256", "md5", conditional_put=True, conditional_complete=True)
    assert keys_in(weed, base_path) == {f"{base_path}/{RESERVED}/capabilities.json"}
    assert uploads_in(weed, base_path) == []
    kept = json.loads(storage.read_reserved("capabilities.json") or b"")
    storage.write_reserved("capabilities.json", json.dumps({**kept, "put_digest": "md5"}).encode())
    assert open_s3(weed).capabilities.put_digest == "md5", "what was kept is used"


@pytest.mark.parametrize("change", [
    {"probed_at": (datetime.now(UTC) - timedelta(hours=25)).isoformat()},
    {"probed_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
    {"probed_at": "2026-01-01T00:00:00"},
    {"endpoint": "http://elsewhere/instruments"},
    {"unknown": 1},
    None,
])  # fmt: skip
def test_findings_that_are_old_or_of_another_server_are_made_anew(
    storage: S3Storage, weed: SeaweedServer, open_s3: Open, change: dict[str, Any] | None
) -> None:
    found = storage.capabilities
    kept = json.loads(storage.read_reserved("capabilities.json") or b"")
    spoiled = {**kept, "put_digest": None, **change} if change else [kept]
    storage.write_reserved("capabilities.json", json.dumps(spoiled).encode())
    again = open_s3(weed)
    assert again.capabilities == found
    assert json.loads(again.read_reserved("capabilities.json") or b"")["put_digest"] == "sha256"


def test_a_weak_server_is_found_out_and_never_replaces_all_the_same(rclone: RcloneServer, open_s3: Open) -> None:
    storage = open_s3(rclone)
    assert storage.capabilities == Capabilities("md5", "md5", conditional_put=False, conditional_complete=False)
    staged = put(storage, "a", b"first")
    assert (staged.published, staged.proof) == (True, Proof.BY_STORE)
    assert storage.token_of("a") == "attempt-1", "though rclone changes the case of metadata keys"
    with pytest.raises(StorageError) as caught:
        storage.write("a", "attempt-2", [b"second"])
    assert caught.value.fault is Fault.EXISTS
    large = storage.write("a", "attempt-3", pieces(content_of(9 * MIB)))
    (error,) = storage.publish([large])
    assert error is not None
    assert error.fault is Fault.EXISTS
    assert read(storage, "a") == b"first"
    storage.delete("a")
    assert list(storage.publish([large])) == [None]
    assert read(storage, "a") == content_of(9 * MIB)
    storage.discard(large.ref, "a")
    assert paths_in(storage) == []


def test_where_no_digest_is_checked_the_published_object_is_to_be_read_back(tmp_path: Path, open_s3: Open) -> None:
    with (
        RcloneServer(tmp_path / "unsigned", bucket=BUCKET) as server,
        front_of(server.endpoint_url, dropped_headers=frozenset({"content-md5"})) as front,
    ):
        storage = open_s3(front)
        assert not storage.capabilities.proves
        for size_bytes in (10, 9 * MIB):
            staged = storage.write(f"{size_bytes}", "attempt-1", pieces(content_of(size_bytes)))
            assert staged.proof is Proof.READ_BACK_PUBLISHED
            assert list(storage.publish([staged])) == [None]
            assert b"".join(storage.read_back(staged)) == content_of(size_bytes)


# -------------------------------------------------------------------------------------------------- wrong connections


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(("more", "fault", "step"), [
    ({"secret_access_key": "wrong"}, Fault.AUTHENTICATION, "log in"),
    ({"access_key_id": "nobody"}, Fault.AUTHENTICATION, "log in"),
    ({"bucket": "no-such-bucket"}, Fault.NO_SUCH_SHARE, "find the bucket"),
    ({"bucket": "Not a bucket!"}, Fault.CONFIGURATION, "speak S3 with it"),
    ({"endpoint_url": "http://127.0.0.1:99999"}, Fault.CONFIGURATION, "speak S3 with it"),
    ({"endpoint_url": "http://["}, Fault.CONFIGURATION, "speak S3 with it"),
    ({"endpoint_url": f"http://127.0.0.1:{unused_port()}"}, Fault.UNREACHABLE, "reach the server"),
])  # fmt: skip
def test_a_wrong_connection_says_what_is_wrong(
    weed: SeaweedServer, more: dict[str, str], fault: Fault, step: str
) -> None:
    storage = S3Storage.from_config("lab", config_of(**{"endpoint_url": weed.endpoint_url, **more}))
    with pytest.raises(StorageError) as caught, storage:
        pytest.fail("It connected.")
    assert caught.value.fault is fault
    assert caught.value.whole_storage
    failed = [finding for finding in storage.check() if not finding.ok]
    assert [finding.name for finding in failed] == [step]
    assert failed[0].detail == str(caught.value)
    assert SECRET_KEY not in str(caught.value)


@pytest.mark.parametrize("status", [200, 404, 502])
@pytest.mark.parametrize("page", [b"<!doctype html><p>Welcome!<br>", b"<html><body>Welcome!</body></html>"])
def test_a_server_that_is_no_s3_server_is_recognised(front: Front, status: int, page: bytes) -> None:
    front.spoil("GET", "", Answer(status, page, {"Content-Type": "text/html"}), times=3)
    storage = S3Storage.from_config("lab", config_of(front.endpoint_url))
    with pytest.raises(StorageError, match="no S3 server") as caught:
        storage.connect()
    assert caught.value.fault is Fault.UNREACHABLE


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = storage_module._CLIENT_CONFIG
    monkeypatch.setattr(storage_module, "_CLIENT_CONFIG", patient.merge(Config(read_timeout=0.2)))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        storage = S3Storage.from_config("lab", config_of(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        with pytest.raises(StorageError) as caught:
            storage.connect()
    assert caught.value.fault is Fault.TIMEOUT


@pytest.mark.parametrize(("code", "status", "fault", "permanent"), [
    ("AccessDenied", 403, Fault.DENIED, False),
    ("403", 403, Fault.DENIED, False),
    ("ExpiredToken", 400, Fault.AUTHENTICATION, True),
    ("RequestTimeTooSkewed", 403, Fault.CONFIGURATION, False),
    ("PermanentRedirect", 301, Fault.CONFIGURATION, True),
    ("NoSuchKey", 404, Fault.NOT_FOUND, False),
    ("404", 404, Fault.NOT_FOUND, False),
    ("NoSuchUpload", 404, Fault.NOT_FOUND, False),
    ("PreconditionFailed", 412, Fault.EXISTS, True),
    ("ConditionalRequestConflict", 409, Fault.IO, False),
    ("SlowDown", 503, Fault.IO, False),
    ("InternalError", 500, Fault.IO, False),
    ("SomethingNew", 418, Fault.IO, False),
    ("BadDigest", 400, Fault.IO, False),
    ("EntityTooLarge", 400, Fault.IO, True),
    ("KeyTooLongError", 400, Fault.NAME, True),
    ("XMinioStorageFull", 507, Fault.FULL, False),
    ("QuotaExceeded", 403, Fault.FULL, False),
])  # fmt: skip
def test_error_codes_are_told_in_our_words(code: str, status: int, fault: Fault, permanent: bool) -> None:
    answer = {"Error": {"Code": code, "Message": "says the server"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = classify(ClientError(answer, "PutObject"), path="a/b")  # type: ignore[arg-type]
    assert (error.fault, error.permanent, error.path) == (fault, permanent, "a/b")
    assert "says the server" in str(error)
    assert code in str(error)


def test_every_use_before_connecting_says_so() -> None:
    storage = S3Storage.from_config("lab", config_of("http://127.0.0.1:1"))
    with pytest.raises(ValueError, match="not connected"):
        storage.stat("a")
    storage.close()
    storage.close()


# ----------------------------------------------------------------------------------------------------- the dry run


def test_the_dry_run_finds_a_good_server_good_and_leaves_nothing(
    storage: S3Storage, weed: SeaweedServer, base_path: str
) -> None:
    findings = storage.check()
    assert [finding.name for finding in findings if not finding.ok] == []
    assert "rejects a wrong digest (sha256" in " ".join(finding.detail for finding in findings)
    assert keys_in(weed, base_path) == set()
    assert uploads_in(weed, base_path) == []
    assert len(storage.check(write=False)) < len(findings)
    assert paths_in(storage) == [], "the connection in use is still open"


def test_the_dry_run_tells_what_a_weak_server_lacks(rclone: RcloneServer, open_s3: Open) -> None:
    findings = open_s3(rclone).check()
    assert all(finding.ok for finding in findings)
    assert "ignores If-None-Match" in " ".join(finding.detail for finding in findings)


def test_the_dry_run_tells_where_writing_is_denied(front: Front, open_s3: Open) -> None:
    storage = open_s3(front)
    front.spoil("PUT", RESERVED, Answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"))
    findings = storage.check()
    assert [finding.name for finding in findings if not finding.ok] == ["write a file"]


# -------------------------------------------------------------------------------------------------------- the config


def test_the_schema_takes_what_an_administrator_writes_and_nothing_else() -> None:
    good = config_of("http://s3-dev:9000")
    jsonschema.Draft202012Validator.check_schema(dict(S3Storage.config_schema))
    jsonschema.validate(good, S3Storage.config_schema)
    jsonschema.validate({**good, "endpoint_url": None}, S3Storage.config_schema)
    for bad in (
        {**good, "endpoint_url": "s3-dev:9000"},
        {**good, "bucket": ""},
        {**good, "buckets": "x"},
        {key: value for key, value in good.items() if key != "secret_access_key"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, S3Storage.config_schema)
    assert set(S3Storage.config_schema["properties"]) >= S3Storage.secret_fields
