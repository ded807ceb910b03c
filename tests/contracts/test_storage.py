"""What every kind of storage promises, tried on a folder, on Samba and on SeaweedFS."""

from __future__ import annotations

import dataclasses
import threading
import tracemalloc
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harvest.demo.servers import SambaServer, SeaweedServer
from harvest.storage import KINDS, open_storage, storage_class
from harvest.storage.base import (
    CHUNK_BYTES,
    RESERVED,
    Entry,
    Fault,
    Incoming,
    Proof,
    Staged,
    Storage,
    StorageError,
    Unreadable,
    WithdrawnError,
)
from harvest.storage.names import decode
from harvest.storage.smb import SmbStorage
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, SMB_PASSWORD, SMB_USER, ShareFolder

NOWHERE = "no-such-host.invalid"
UNUSED_PORT = 1


class Place(ABC):
    """Somewhere a kind of storage can be opened, and looked at behind its back."""

    kind: str
    base_path: str
    config: Mapping[str, Any]
    many = 5000
    bad: Mapping[str, tuple[str, Mapping[str, Any], Fault]] = {}
    """What can be wrong: a base path, changes to the config, and the fault that connecting must report."""

    def open(self, base_path: str | None = None, **changes: Any) -> Storage:
        """A storage, not connected."""
        return open_storage(self.kind, self.base_path if base_path is None else base_path, {**self.config, **changes})

    @abstractmethod
    def plant(self, path: str, content: bytes) -> None: ...

    @abstractmethod
    def peek(self) -> dict[str, bytes]:
        """All that lies there and is not reserved, by its path below the base path."""


class Folder(Place):
    def __init__(self, kind: str, path: Path, base_path: str, config: Mapping[str, Any]) -> None:
        self.kind, self.path, self.base_path, self.config = kind, path, base_path, config

    def plant(self, path: str, content: bytes) -> None:
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def peek(self) -> dict[str, bytes]:
        found = {str(file.relative_to(self.path)): file for file in self.path.rglob("*") if file.is_file()}
        return {path: file.read_bytes() for path, file in found.items() if path.split("/")[0] != RESERVED}


class Bucket(Place):
    kind = "s3"
    base_path = "lab/one"
    many = 1200  # more than a page of a listing; planting is slow

    def __init__(self, server: SeaweedServer, bucket: str) -> None:
        self.client, self.bucket = server.client(), bucket
        self.config = {
            "bucket": bucket,
            "region": server.region,
            "endpoint_url": server.endpoint_url,
            "access_key_id": S3_ACCESS_KEY,
            "secret_access_key": S3_SECRET_KEY,
        }
        self.bad = {
            "host": (self.base_path, {"endpoint_url": f"http://{NOWHERE}:8333"}, Fault.UNREACHABLE),
            "port": (self.base_path, {"endpoint_url": f"http://127.0.0.1:{UNUSED_PORT}"}, Fault.UNREACHABLE),
            "password": (self.base_path, {"secret_access_key": "not-this-one"}, Fault.AUTHENTICATION),
            "bucket": (self.base_path, {"bucket": "no-such-bucket"}, Fault.NO_SUCH_SHARE),
        }

    def plant(self, path: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.base_path}/{path}", Body=content)

    def peek(self) -> dict[str, bytes]:
        found = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for listed in page.get("Contents", []):
                path = listed["Key"].removeprefix(f"{self.base_path}/")
                if path.split("/")[0] != RESERVED:
                    found[path] = self.client.get_object(Bucket=self.bucket, Key=listed["Key"])["Body"].read()
        return found


@pytest.fixture
def posix(tmp_path: Path) -> Place:
    place = Folder("posix", tmp_path, str(tmp_path), {})
    place.bad = {"base folder": (f"{tmp_path}/missing", {}, Fault.NOT_MOUNTED)}
    return place


@pytest.fixture
def cifs(samba: SambaServer, archive_dir: ShareFolder) -> Place:
    place = Folder(
        "cifs",
        archive_dir.path,
        archive_dir.base_path,
        {
            "host": f"{samba.host}:{samba.port}",
            "share": archive_dir.share,
            "domain": None,
            "username": SMB_USER,
            "password": SMB_PASSWORD,
        },
    )
    base_path = archive_dir.base_path
    place.bad = {
        "host": (base_path, {"host": NOWHERE}, Fault.UNREACHABLE),
        "port": (base_path, {"host": f"{samba.host}:{UNUSED_PORT}"}, Fault.UNREACHABLE),
        "password": (base_path, {"password": "not-this-one"}, Fault.AUTHENTICATION),
        "share": (base_path, {"share": "no-such-share"}, Fault.NO_SUCH_SHARE),
        "base folder": (f"{base_path}/missing", {}, Fault.NOT_MOUNTED),
    }
    return place


@pytest.fixture
def cifs_plain(cifs: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same, with smbprotocol driving the connection."""
    monkeypatch.setattr(SmbStorage, "pipelined", False)
    return cifs


@pytest.fixture
def s3(weed: SeaweedServer, bucket: str) -> Place:
    return Bucket(weed, bucket)


@pytest.fixture(params=["posix", "cifs", "cifs_plain", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def storage(place: Place) -> Iterator[Storage]:
    with place.open() as storage:
        yield storage


def bring(storage: Storage, path: str, content: bytes, token: str) -> None:
    """A file's whole way: written, read back, published. Raises what went wrong."""
    staged = storage.write(path, token, pieces(content))
    storage.make_durable([staged])
    if staged.proof is Proof.READ_BACK:
        assert b"".join(storage.read_back(staged)) == content
    if not staged.published:
        for error in storage.publish([staged]):
            if error:
                raise error


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


def large(place: Place) -> bytes:
    """Content that every kind stages before it publishes: S3 publishes smaller ones at once."""
    return b"large" * (9 * CHUNK_BYTES // 5) if place.kind == "s3" else b"large"


def paths(storage: Storage, top: str = "", *, recursive: bool = True) -> list[str]:
    found = list(storage.walk(top, recursive=recursive))
    assert all(isinstance(item, Entry) for item in found), found
    return sorted(item.path for item in found)


# --------------------------------------------------------------------------------------------------- the way of a file


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17, 9 * CHUNK_BYTES + 1],
)
def test_every_size_comes_back_as_it_was(place: Place, storage: Storage, size_bytes: int) -> None:
    content = bytes(range(251)) * (size_bytes // 251 + 1)
    content = content[:size_bytes]

    bring(storage, "run/fid", content, "t1")

    assert place.peek() == {"run/fid": content}
    assert storage.stat("run/fid").size_bytes == size_bytes
    received = list(storage.read("run/fid"))
    assert b"".join(received) == content
    assert all(0 < len(piece) <= CHUNK_BYTES for piece in received)


def test_pieces_of_any_size_are_taken(place: Place, storage: Storage) -> None:
    chunks = [b"", b"a", b"", b"b" * (2 * CHUNK_BYTES + 5), b"c"]

    staged = storage.write("odd", "t1", iter(chunks))

    assert staged.size_bytes == sum(map(len, chunks))
    assert staged.published or list(storage.publish([staged])) == [None]
    assert place.peek() == {"odd": b"".join(chunks)}


NAMES = [
    "plain.raw",
    " leading space",
    "trailing space ",
    "trailing dot.",
    "dots...",
    ".hidden",
    "...",
    "~$lock.docx",
    "a%41",
    "a%zz",
    "50%",
    "test%46.txt",
    "100%25",
    "CON",
    "nul.txt",
    "com1.tar.gz",
    "colon:stream",
    'quote"star*question?less<more>pipe|',
    "back\\slash",
    "new\nline",
    "carriage\rreturn",
    "tab\tbell\x07escape\x1b[31m",
    "\x01",
    "delete\x7f",
    "punctuation !#$&'()+,-;=@[]^_`{}",
    "e\u0301 decomposed",
    "\u00e9 composed",
    "測定データ",
    "emoji 🧪👩‍🔬",
    "right-to-left \u202etxt.exe",
    "zero\u200bwidth\ufeff",
    "full．stop／solidus：colon",
    "x" * 255,
    "測" * 85,
]


def test_every_name_comes_back_as_it_was(place: Place, storage: Storage) -> None:
    stored = {name: storage.stored_path(f"20260115/{name}") for name in NAMES}
    assert len({path.casefold() if storage.folds_case else path for path in stored.values()}) == len(NAMES)

    for number, (name, path) in enumerate(stored.items()):
        bring(storage, path, name.encode(), f"t{number}")

    assert paths(storage) == sorted(stored.values())
    assert sorted(place.peek()) == sorted(stored.values())
    for name, path in stored.items():
        assert storage.stat(path).size_bytes == len(name.encode())
        assert b"".join(storage.read(path)) == name.encode()
        assert decode(path) == f"20260115/{name}"


@pytest.mark.parametrize("path", ["..", "a/../b", "./a", "a/.", f"{RESERVED}/tmp/x"])
def test_a_path_that_would_lead_elsewhere_is_stored_under_another_name(
    place: Place, storage: Storage, path: str
) -> None:
    stored = storage.stored_path(path)

    bring(storage, stored, b"content", "t1")

    assert decode(stored) == path
    assert place.peek() == {stored: b"content"}


@pytest.mark.parametrize("path", ["", "/", "..", "../out", "a/../../out", "a//b", "/abs", "a/", "a/./b", "nul\0"])
def test_a_path_that_leads_elsewhere_is_refused(place: Place, storage: Storage, path: str) -> None:
    with pytest.raises(StorageError) as caught:
        storage.write(path, "t1", [b"content"])
    assert caught.value.fault is Fault.NAME
    with pytest.raises(StorageError) as caught:
        list(storage.read(path))
    assert caught.value.fault is Fault.NAME
    assert place.peek() == {}


def test_a_name_that_is_too_long_says_the_limit(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"255|1024") as caught:
        storage.stored_path("run/" + "x" * 1100)
    assert caught.value.fault is Fault.NAME
    assert caught.value.permanent


# ------------------------------------------------------------------------------------------------------ never replacing


def test_a_file_that_exists_is_never_replaced(place: Place, storage: Storage) -> None:
    place.plant("run/fid", b"what was there")

    with pytest.raises(StorageError) as caught:
        bring(storage, "run/fid", b"something else", "t1")

    assert caught.value.fault is Fault.EXISTS
    assert caught.value.permanent
    assert place.peek() == {"run/fid": b"what was there"}


def test_staged_bytes_survive_a_refusal_and_can_be_discarded(place: Place, storage: Storage) -> None:
    content = large(place)
    staged = storage.write("run/fid", "t1", pieces(content))
    place.plant("run/fid", b"what was there")

    (error,) = storage.publish([staged])

    assert error is not None
    assert error.fault is Fault.EXISTS
    assert [token for _, token in storage.leftovers()] == ["t1"]
    storage.discard(staged.ref, staged.path)
    assert list(storage.leftovers()) == []
    assert place.peek() == {"run/fid": b"what was there"}


def test_of_two_who_publish_one_name_exactly_one_wins(place: Place) -> None:
    count = 8 if place.kind == "s3" else 60
    contents = [who * len(large(place)) for who in (b"1", b"2")]
    both_ready = threading.Barrier(2)

    def publish(which: int) -> list[StorageError | None]:
        with place.open() as storage:
            staged = [
                storage.write(f"run/{number}", f"w{which}-{number}", pieces(contents[which])) for number in range(count)
            ]
            storage.make_durable(staged)
            outcomes: list[StorageError | None] = []
            for item in staged:
                both_ready.wait(timeout=60)
                outcomes += storage.publish([item])
            return outcomes

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(publish, (0, 1))

    seen = place.peek()
    for number, errors in enumerate(zip(first, second, strict=True)):
        winners = [which for which in (0, 1) if errors[which] is None]
        # SeaweedFS may answer both that it completed their uploads, and keep neither whole; S3Storage takes that back.
        assert len(winners) == 1 or (place.kind == "s3" and not winners), errors
        assert {error.fault for error in errors if error} <= {Fault.EXISTS, Fault.NOT_FOUND}, errors
        assert [seen[f"run/{number}"]] == [contents[which] for which in winners] or not winners


def test_a_token_is_used_once(place: Place, storage: Storage) -> None:
    staged = storage.write("one", "t1", pieces(large(place)))
    if place.kind == "s3":
        pytest.skip("S3 tells uploads apart by ids of its own: two of one token do not meet.")

    with pytest.raises(StorageError) as caught:
        storage.write("two", "t1", [b"other"])

    assert caught.value.fault is Fault.EXISTS
    assert b"".join(storage.read_back(staged)) == large(place)


# --------------------------------------------------------------------------------------------------------- half-way


def test_staged_bytes_are_invisible(place: Place, storage: Storage) -> None:
    storage.write("run/fid", "t1", pieces(large(place)))

    assert paths(storage) == []
    assert place.peek() == {}
    assert [token for _, token in storage.leftovers()] == ["t1"]


def test_another_process_goes_on_with_what_was_staged(place: Place, storage: Storage) -> None:
    staged = storage.write("run/fid", "t1", pieces(large(place)))
    storage.close()

    with place.open() as other:
        ((ref, token),) = other.leftovers()
        assert (ref, token) == (staged.ref, "t1")
        assert list(other.publish([staged])) == [None]
        assert list(other.leftovers()) == []

    assert place.peek() == {"run/fid": large(place)}


@pytest.mark.parametrize("after_bytes", [0, 1, 10 * CHUNK_BYTES])
def test_a_source_that_fails_leaves_nothing(place: Place, storage: Storage, after_bytes: int) -> None:
    class SourceLostError(Exception):
        pass

    def failing() -> Iterator[bytes]:
        yield from pieces(b"x" * after_bytes)
        raise SourceLostError

    with pytest.raises(SourceLostError):
        storage.write("run/fid", "t1", failing())

    assert place.peek() == {}
    assert list(storage.leftovers()) == []


def test_publishing_what_is_gone_says_so_and_goes_on(place: Place, storage: Storage) -> None:
    gone, kept = (storage.write(f"run/{name}", name, pieces(large(place))) for name in ("gone", "kept"))
    storage.discard(gone.ref, gone.path)

    first, second = storage.publish([gone, kept])

    assert first is not None
    assert first.fault is Fault.NOT_FOUND
    assert second is None
    assert list(place.peek()) == ["run/kept"]


def test_many_are_made_durable_and_published_together(place: Place, storage: Storage) -> None:
    staged = [storage.write(f"run/{number}/fid", f"t{number}", [b"%d" % number]) for number in range(40)]

    storage.make_durable(staged)

    waiting = [item for item in staged if not item.published]
    assert list(storage.publish(waiting)) == [None] * len(waiting)
    assert place.peek() == {f"run/{number}/fid": b"%d" % number for number in range(40)}


def test_discarding_and_deleting_twice_is_fine(place: Place, storage: Storage) -> None:
    staged = storage.write("run/other", "t1", pieces(large(place)))
    bring(storage, "run/fid", b"content", "t2")

    for _ in range(2):
        storage.discard(staged.ref, staged.path)
        storage.delete("run/fid")
        storage.delete("never/was/there")

    assert place.peek() == {}
    assert list(storage.leftovers()) == []


# ------------------------------------------------------------------------------------------------------- many at once

SIZES = [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9 * CHUNK_BYTES + 17]
CHANGED_AT = datetime(2019, 3, 4, 5, 6, 7, 891_234, tzinfo=UTC)


class SourceLostError(Exception):
    pass


def in_one_buffer(content: bytes) -> Iterator[memoryview]:
    """The content as a fast reader gives it: every piece in the buffer of the one before."""
    buffer = bytearray(CHUNK_BYTES)
    for piece in pieces(content):
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]
        buffer[:] = bytes(CHUNK_BYTES)


def incoming(contents: Mapping[str, bytes], prefix: str = "t") -> Iterator[Incoming]:
    for number, (path, content) in enumerate(contents.items()):
        yield Incoming(path, f"{prefix}{number}", in_one_buffer(content), len(content))


def staged_of(results: Iterable[Staged | StorageError | WithdrawnError]) -> list[Staged]:
    found = list(results)
    assert all(isinstance(item, Staged) for item in found), found
    return [item for item in found if isinstance(item, Staged)]


def publish_rest(storage: Storage, staged: list[Staged]) -> list[StorageError | None]:
    return list(storage.publish([item for item in staged if not item.published]))


def mixed(count: int) -> dict[str, bytes]:
    """Files of many sizes, in many folders; no two alike."""
    order = [SIZES[number % len(SIZES)] for number in range(len(SIZES))] + [number * 97 for number in range(count)]
    return {
        f"run/{number % 7}/pdata/{number}": (b"%d," % number * (size_bytes // 2 + 1))[:size_bytes]
        for number, size_bytes in enumerate(order)
    }


def test_many_of_all_sizes_go_the_whole_way(place: Place, storage: Storage) -> None:
    contents = mixed(30)

    staged = staged_of(storage.write_many(incoming(contents)))
    storage.make_durable(staged)
    hidden = [item for item in staged if item.proof is Proof.READ_BACK]
    back = {one.path: b"".join(map(bytes, one.chunks())) for one in storage.read_back_many(hidden)}
    errors = publish_rest(storage, staged)
    visible = [item for item in staged if item.proof is Proof.READ_BACK_PUBLISHED]
    back |= {one.path: b"".join(map(bytes, one.chunks())) for one in storage.read_back_many(visible)}

    assert [item.path for item in staged] == list(contents)
    assert [item.size_bytes for item in staged] == list(map(len, contents.values()))
    assert list(back) == [item.path for item in hidden + visible]
    assert all(content == contents[path] for path, content in back.items())
    assert set(errors) <= {None}
    assert place.peek() == contents
    assert list(storage.leftovers()) == []


def test_many_are_read_in_order(place: Place, storage: Storage) -> None:
    contents = mixed(30)
    for path, content in contents.items():
        place.plant(path, content)
    entries = [storage.stat(path) for path in contents]

    for entry, reading in zip(entries, storage.read_many(entries), strict=True):
        received = [bytes(piece) for piece in reading.chunks()]

        assert reading.path == entry.path
        assert b"".join(received) == contents[entry.path]
        assert all(0 < len(piece) <= CHUNK_BYTES for piece in received)
        assert reading.look().same_content_as(entry)


def test_three_hundred_small_files_go_the_whole_way(place: Place, storage: Storage) -> None:
    contents = {f"run/{number % 20}/{number:03}.txt": b"%d" % number * (number % 50) for number in range(300)}

    staged = staged_of(storage.write_many(incoming(contents)))
    storage.make_durable(staged)

    assert [item.path for item in staged] == list(contents)
    assert set(publish_rest(storage, staged)) <= {None}
    entries = [entry for entry in storage.walk() if isinstance(entry, Entry)]
    assert {one.path: b"".join(map(bytes, one.chunks())) for one in storage.read_many(entries)} == contents


def test_none_at_all_is_fine(storage: Storage) -> None:
    storage.make_durable([])

    assert list(storage.write_many([])) == []
    assert list(storage.read_many([])) == []
    assert list(storage.read_back_many([])) == []
    assert list(storage.publish([])) == []


def test_a_file_that_cannot_be_read_stops_no_other(place: Place, storage: Storage) -> None:
    contents = {f"run/{number}": b"%d" % number for number in range(12)}
    for path, content in contents.items():
        place.plant(path, content)
    there = [storage.stat(path) for path in contents]
    missing = [dataclasses.replace(there[0], path=path) for path in ("run/missing", "no/such/folder", "../escape")]
    entries = [*there[:4], missing[0], *there[4:8], *missing[1:], *there[8:]]
    outcomes: dict[str, bytes | Fault] = {}

    for reading in storage.read_many(entries):
        try:
            outcomes[reading.path] = b"".join(map(bytes, reading.chunks()))
        except StorageError as error:
            outcomes[reading.path] = error.fault

    assert list(outcomes) == [entry.path for entry in entries]
    assert {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, bytes)} == contents
    assert {outcomes[entry.path] for entry in missing} <= {Fault.NOT_FOUND, Fault.NAME}


def test_a_file_that_is_passed_over_hinders_no_other(place: Place, storage: Storage) -> None:
    contents = {f"run/{number}": b"%d" % number * (2 * CHUNK_BYTES if number % 4 == 1 else 1) for number in range(12)}
    for path, content in contents.items():
        place.plant(path, content)
    seen = {}

    for number, reading in enumerate(storage.read_many([storage.stat(path) for path in contents])):
        if number % 3 == 1:
            continue  # not even begun
        chunks = reading.chunks()
        if number % 3 == 2:
            next(chunks)  # begun, and left
        else:
            seen[reading.path] = b"".join(map(bytes, chunks))

    assert seen == {path: content for number, (path, content) in enumerate(contents.items()) if number % 3 == 0}


@pytest.mark.parametrize("now", [b"", b"short", b"0123456789", b"longer than before" * 100_000])
def test_a_file_of_another_size_than_listed_never_passes_for_the_listed(
    place: Place, storage: Storage, now: bytes
) -> None:
    place.plant("run/fid", now)
    listed = dataclasses.replace(storage.stat("run/fid"), size_bytes=8)

    (reading,) = storage.read_many([listed])
    fault = None
    try:
        received = b"".join(map(bytes, reading.chunks()))
        looked = reading.look()
    except StorageError as error:
        fault = error.fault

    if fault is None:
        assert not looked.same_content_as(listed)
        assert received in (now, now[:8])
    else:
        assert fault is Fault.CHANGED


def test_reading_many_can_be_left_at_any_time(place: Place, storage: Storage) -> None:
    contents = mixed(20)
    for path, content in contents.items():
        place.plant(path, content)
    entries = [storage.stat(path) for path in contents]

    for after in (0, 1, 7):
        readings = storage.read_many(entries)
        for _, reading in zip(range(after), readings, strict=False):
            next(iter(reading.chunks()), None)
        readings.close()

    assert {one.path: b"".join(map(bytes, one.chunks())) for one in storage.read_many(entries)} == contents


def test_one_file_is_taken_in_before_the_next_is_asked_for(storage: Storage) -> None:
    happened: list[str] = []

    def chunks(number: int) -> Iterator[bytes]:
        happened.append(f"begun {number}")
        yield b"x" * number * 100
        happened.append(f"ended {number}")

    def files() -> Iterator[Incoming]:
        for number in range(40):
            happened.append(f"asked {number}")
            yield Incoming(f"run/{number}", f"t{number}", chunks(number), number * 100)

    staged_of(storage.write_many(files()))

    assert happened == [f"{what} {number}" for number in range(40) for what in ("asked", "begun", "ended")]


@pytest.mark.parametrize("after_bytes", [0, 1, 5 * CHUNK_BYTES])
def test_what_is_withdrawn_leaves_nothing_and_the_rest_goes_on(
    place: Place, storage: Storage, after_bytes: int
) -> None:
    def withdrawn() -> Iterator[bytes]:
        yield from pieces(b"x" * after_bytes)
        raise WithdrawnError

    def files() -> Iterator[Incoming]:
        for number in range(12):
            chunks = withdrawn() if number % 4 == 1 else iter([b"%d" % number])
            yield Incoming(f"run/{number}", f"t{number}", chunks, after_bytes)

    results = list(storage.write_many(files()))

    for number, result in enumerate(results):
        assert isinstance(result, WithdrawnError if number % 4 == 1 else Staged)
    staged = [result for result in results if isinstance(result, Staged)]
    assert {token for _, token in storage.leftovers()} == {item.ref for item in staged if not item.published}
    storage.make_durable(staged)
    assert set(publish_rest(storage, staged)) <= {None}
    assert place.peek() == {f"run/{number}": b"%d" % number for number in range(12) if number % 4 != 1}


@pytest.mark.parametrize("where", ["chunks", "files"])
@pytest.mark.parametrize("after", [0, 1, 25])
def test_a_source_that_fails_leaves_nothing_of_what_was_not_told(
    place: Place, storage: Storage, where: str, after: int
) -> None:
    def lost() -> Iterator[bytes]:
        yield b"x"
        raise SourceLostError

    def files() -> Iterator[Incoming]:
        yield from incoming({f"run/{number}": b"%d" % number for number in range(after)})
        if where == "files":
            raise SourceLostError
        yield Incoming("run/lost", "lost", lost(), 2)
        pytest.fail("asked for more")

    told: list[Staged] = []
    with pytest.raises(SourceLostError):
        told.extend(result for result in storage.write_many(files()) if isinstance(result, Staged))

    assert {token for _, token in storage.leftovers()} == {item.ref for item in told if not item.published}
    assert set(place.peek()) == {item.path for item in told if item.published}


def test_a_token_that_is_taken_stops_no_other(place: Place, storage: Storage) -> None:
    if place.kind == "s3":
        pytest.skip("S3 tells uploads apart by ids of its own: two of one token do not meet.")
    first = storage.write("first", "t5", [b"first"])
    contents = {f"run/{number}": b"%d" % number * (CHUNK_BYTES if number == 6 else 1) for number in range(10)}

    results = list(storage.write_many(incoming(contents)))

    refused = results.pop(5)
    assert isinstance(refused, StorageError)
    assert refused.fault is Fault.EXISTS
    assert b"".join(storage.read_back(first)) == b"first"
    staged = staged_of(results)
    storage.make_durable(staged)
    assert list(storage.publish(staged)) == [None] * 9
    assert place.peek() == {path: content for path, content in contents.items() if path != "run/5"}


def test_more_or_less_than_expected_is_taken_as_it_comes(place: Place, storage: Storage) -> None:
    contents = mixed(10)
    files = [Incoming(path, f"t{n}", pieces(content), n * 1000) for n, (path, content) in enumerate(contents.items())]

    staged = staged_of(storage.write_many(files))

    assert [item.size_bytes for item in staged] == list(map(len, contents.values()))
    assert set(publish_rest(storage, staged)) <= {None}
    assert place.peek() == contents


def test_a_copy_has_the_time_it_is_given(place: Place, storage: Storage) -> None:
    if place.kind == "s3":
        pytest.skip("S3 keeps the time at which an object was made.")
    contents = {"run/empty": b"", "run/small": b"small", "run/large": b"large" * CHUNK_BYTES}
    files = [Incoming(path, path[4:], pieces(content), len(content), CHANGED_AT) for path, content in contents.items()]

    staged = staged_of(storage.write_many(files))
    staged.append(storage.write("run/alone", "alone", [b"alone"], modified_at=CHANGED_AT))
    storage.make_durable(staged)

    assert set(publish_rest(storage, staged)) == {None}
    entries = [entry for entry in storage.walk() if isinstance(entry, Entry)]
    assert {entry.path: entry.modified_at for entry in entries} == dict.fromkeys([*contents, "run/alone"], CHANGED_AT)


def test_of_a_batch_only_what_is_taken_is_refused(place: Place, storage: Storage) -> None:
    content = large(place)
    contents = {f"run/{number % 3}/{number}": content + b"%d" % number for number in range(9)}
    staged = staged_of(storage.write_many(incoming(contents)))
    taken = dict.fromkeys(list(contents)[::3], b"what was there")
    for path, planted in taken.items():
        place.plant(path, planted)
    storage.discard(staged[4].ref, staged[4].path)
    storage.make_durable(staged)

    errors = list(storage.publish(staged))

    expected = [Fault.EXISTS, None, None, Fault.EXISTS, Fault.NOT_FOUND, None, Fault.EXISTS, None, None]
    assert [error and error.fault for error in errors] == expected
    assert [error and error.path for error in errors] == [
        fault and path for fault, path in zip(expected, contents, strict=True)
    ]
    del contents[staged[4].path]
    assert place.peek() == {**contents, **taken}
    assert {token for _, token in storage.leftovers()} == {"t0", "t3", "t6"}


def test_one_name_twice_in_a_batch_is_published_once(place: Place, storage: Storage) -> None:
    contents = [large(place) + b"%d" % number for number in range(3)]
    files = [
        Incoming("run/fid", f"t{number}", pieces(content), len(content)) for number, content in enumerate(contents)
    ]
    staged = staged_of(storage.write_many(files))
    storage.make_durable(staged)

    errors = list(storage.publish(staged))

    assert sorted(str(error and error.fault) for error in errors) == ["None", "exists", "exists"]
    assert place.peek() == {"run/fid": contents[errors.index(None)]}


# ---------------------------------------------------------------------------------------------------------- looking


def test_reading_starts_where_it_is_told_to(place: Place, storage: Storage) -> None:
    content = bytes(range(256)) * 8192
    place.plant("fid", content)

    for offset in (0, 1, CHUNK_BYTES, len(content) - 1, len(content), len(content) + 5):
        assert b"".join(storage.read("fid", offset=offset)) == content[offset:]


def test_a_listing_and_a_stat_agree(place: Place, storage: Storage) -> None:
    for path, content in {"a": b"", "run/1/fid": b"12345", "run/2/fid": b"1"}.items():
        place.plant(path, content)

    listed = {entry.path: entry for entry in storage.walk() if isinstance(entry, Entry)}

    assert {path: entry.size_bytes for path, entry in listed.items()} == {"a": 0, "run/1/fid": 5, "run/2/fid": 1}
    for path, entry in listed.items():
        assert storage.stat(path) == entry
        assert entry.modified_at.tzinfo is UTC
        assert abs(datetime.now(UTC) - entry.modified_at) < timedelta(minutes=5)
    assert len({entry.file_id for entry in listed.values()}) in (1, 3)  # none has one, or each its own


def test_a_walk_can_be_confined(place: Place, storage: Storage) -> None:
    for path in ("top", "run/1/fid", "run/1/pdata/1/1r", "run/2/fid", "run-other/fid"):
        place.plant(path, b"x")

    assert paths(storage, "run/1") == ["run/1/fid", "run/1/pdata/1/1r"]
    assert paths(storage, "run/1", recursive=False) == ["run/1/fid"]
    assert paths(storage, recursive=False) == ["top"]
    assert len(paths(storage)) == 5


def test_only_our_own_folder_is_left_out_of_a_walk(place: Place, storage: Storage) -> None:
    planted = [".hidden", "Thumbs.db", "~$open.docx", f"run/{RESERVED}/x", "x.part", "fid.tmp", f"{RESERVED}2/x"]
    for path in (*planted, f"{RESERVED}/x", f"{RESERVED}/tmp/y"):
        place.plant(path, b"x")

    assert paths(storage) == sorted(planted)
    assert paths(storage, RESERVED) == []


def test_a_walk_of_a_folder_that_is_not_there_says_so(place: Place, storage: Storage) -> None:
    found = list(storage.walk("no/such/folder"))

    assert place.kind == "s3" or [(item.path, item.error.fault) for item in found if isinstance(item, Unreadable)] == [
        ("no/such/folder", Fault.NOT_FOUND)
    ]
    assert not any(isinstance(item, Entry) for item in found)


def test_a_walk_of_many_files_takes_little_memory(place: Place, storage: Storage) -> None:
    for number in range(place.many):
        place.plant(f"run/measurement with a longer name {number:06}.raw", b"")

    tracemalloc.start()
    try:
        count = sum(isinstance(entry, Entry) for entry in storage.walk())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == place.many
    # The answers of a page or two: 1,000 objects for S3, 256 KiB for SMB.
    assert peak_bytes < (12 if place.kind == "s3" else 2) * CHUNK_BYTES


@pytest.mark.parametrize("path", ["missing", "no/such/folder/missing", "run", "fid/below"])
def test_what_is_not_there_is_not_found(place: Place, storage: Storage, path: str) -> None:
    place.plant("run/1", b"x")
    place.plant("fid", b"x")

    with pytest.raises(StorageError) as caught:
        storage.stat(path)
    assert caught.value.fault in (Fault.NOT_FOUND, Fault.NAME)
    with pytest.raises(StorageError) as caught:
        list(storage.read(path))
    assert caught.value.fault in (Fault.NOT_FOUND, Fault.NAME)
    assert caught.value.path == path


def test_unicode_is_not_normalised(place: Place, storage: Storage) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Prüfung é.raw") for form in ("NFC", "NFD"))
    assert composed != decomposed
    place.plant(composed, b"composed")
    place.plant(decomposed, b"decomposed")

    assert set(paths(storage)) == {composed, decomposed}
    assert b"".join(storage.read(composed)) == b"composed"
    assert b"".join(storage.read(decomposed)) == b"decomposed"


# -------------------------------------------------------------------------------------------- our own small files


def test_reserved_files_are_kept_replaced_and_hidden(place: Place, storage: Storage) -> None:
    assert storage.read_reserved("sentinel") is None
    assert storage.read_reserved("manifests/none.jsonl") is None

    for content in (b"first", b"", b"third, and longer than the others"):
        storage.write_reserved("sentinel", content)
        storage.write_reserved("manifests/run-1.jsonl", content)
        assert storage.read_reserved("sentinel") == content
        assert storage.read_reserved("manifests/run-1.jsonl") == content

    assert paths(storage) == []
    assert place.peek() == {}
    assert list(storage.leftovers()) == []


def test_reserved_files_outlive_the_connection(place: Place, storage: Storage) -> None:
    storage.write_reserved("sentinel", b"this disk")
    storage.close()

    with place.open() as other:
        assert other.read_reserved("sentinel") == b"this disk"


# ---------------------------------------------------------------------------------------------------------- health


def test_free_space_is_plausible(storage: Storage) -> None:
    free = storage.free_bytes()
    assert free is None or free > 1_000_000


def test_the_clock_is_ours(storage: Storage) -> None:
    offset = storage.clock_offset_seconds()
    assert offset is None or abs(offset) < 60


def test_a_check_of_a_good_storage_finds_nothing_and_leaves_nothing(place: Place) -> None:
    for write in (True, False):
        storage = place.open()
        findings = storage.check(write=write)
        assert [finding for finding in findings if not finding.ok] == []
        assert len({finding.name for finding in findings}) == len(findings)
        assert all(finding.detail for finding in findings)

    assert place.peek() == {}
    with place.open() as storage:
        assert list(storage.leftovers()) == []


def test_what_is_wrong_with_a_configuration_is_told_apart(place: Place) -> None:
    told = set()
    for label, (base_path, changes, fault) in place.bad.items():
        storage = place.open(base_path, **changes)
        with pytest.raises(StorageError) as caught:
            storage.connect()
        assert caught.value.fault is fault, label
        assert caught.value.whole_storage, label

        failed = [finding for finding in place.open(base_path, **changes).check() if not finding.ok]
        assert len(failed) == 1, label
        told.add((failed[0].name, failed[0].detail))
        storage.close()

    assert len(told) == len(place.bad)
    assert not any(password in detail for _, detail in told for password in (SMB_PASSWORD, S3_SECRET_KEY, "not-this"))


def test_closing_twice_is_fine_and_it_can_be_opened_again(place: Place) -> None:
    storage = place.open()
    storage.close()
    for _ in range(2):
        with storage:
            assert paths(storage) == []
        storage.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_is_described(kind: str) -> None:
    found = storage_class(kind)

    jsonschema.Draft202012Validator.check_schema(found.config_schema)
    assert found.kind == kind
    assert found.secret_fields <= set(found.config_schema["properties"])


def test_the_place_meets_the_description(place: Place) -> None:
    jsonschema.validate(place.config, storage_class(place.kind).config_schema)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StorageError, match="cifs, posix, s3") as caught:
        open_storage("ftp", "/", None)
    assert caught.value.fault is Fault.CONFIGURATION


def test_settings_can_add_a_kind(tmp_path: Path) -> None:
    kinds = {**KINDS, "disk": "harvest.storage.posix.PosixStorage"}

    with open_storage("disk", str(tmp_path), None, kinds=kinds) as storage:
        assert paths(storage) == []
