"""Many objects at once: on a strict server (SeaweedFS), on a weak one, and behind what spoils the exchange."""

from __future__ import annotations

import datetime as clock
import json
import os
import random
import subprocess
import sys
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.auth
import pytest

from harvest.demo.servers import SeaweedServer
from harvest.storage.base import RESERVED, Entry, Fault, Incoming, Proof, Staged, StorageError, WithdrawnError
from harvest.storage.s3 import S3Storage
from harvest.storage.s3 import signed as signed_module
from harvest.storage.s3.kept import KeptConnections
from harvest.storage.s3.many import MOST_BYTES, MOST_JOBS
from harvest.storage.s3.metadata import seconds_since_1970
from harvest.storage.s3.writing import SENT_AT_ONCE_BYTES, Outcome
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY
from tests.storage.s3_ends import Pair, certified, recording, relay_to
from tests.storage.s3_servers import Answer, CutBody, FlipByte, Front, LoseAnswer, RcloneServer, front_of

MIB = 1 << 20
BUCKET = "instruments"
BUSY = Answer(503, b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>")

Open = Callable[..., S3Storage]


@pytest.fixture
def base_path() -> str:
    return f"many/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def open_s3(base_path: str) -> Iterator[Open]:
    """Opens storages, which are closed at the end of the test."""
    opened: list[S3Storage] = []

    def open_storage(endpoint_url: str) -> S3Storage:
        keys = {"access_key_id": S3_ACCESS_KEY, "secret_access_key": S3_SECRET_KEY}
        storage = S3Storage.from_config(base_path, {"bucket": BUCKET, "endpoint_url": endpoint_url, **keys})
        storage.connect()
        opened.append(storage)
        return storage

    yield open_storage
    for storage in opened:
        storage.close()


@pytest.fixture
def storage(weed: SeaweedServer, open_s3: Open) -> S3Storage:
    return open_s3(weed.endpoint_url)


@pytest.fixture
def front(weed: SeaweedServer) -> Iterator[Front]:
    with front_of(weed.endpoint_url) as front:
        yield front


@pytest.fixture
def fronted(front: Front, open_s3: Open) -> S3Storage:
    """A storage behind the front that knows already what the server can do."""
    storage = open_s3(front.endpoint_url)
    assert storage.capabilities.proves
    return storage


def content_of(number: int, size_bytes: int = 100) -> bytes:
    return random.Random(number).randbytes(size_bytes)


def incoming(number: int, chunks: Iterable[bytes] | None = None, *, name: str | None = None) -> Incoming:
    content = content_of(number)
    return Incoming(name or f"{number:04d}", f"t{number}", [content] if chunks is None else chunks, len(content))


def failing(error: BaseException, after_bytes: int = 10) -> Iterator[bytes]:
    yield bytes(after_bytes)
    raise error


def paths_in(storage: S3Storage) -> list[str]:
    return [found.path for found in storage.walk()]


def read(storage: S3Storage, path: str) -> bytes:
    return b"".join(storage.read(path))


def puts_of(front: Front, name: str) -> int:
    return sum(line.startswith("PUT") and line.endswith(name) for line in front.seen)


# ------------------------------------------------------------------------------------------------------------ writing


def test_two_thousand_objects_are_written_and_read_back_in_order_and_in_flat_memory(storage: S3Storage) -> None:
    assert storage.capabilities.proves
    size_bytes = 8 << 10
    taken: list[int] = []

    def files() -> Iterator[Incoming]:
        for number in range(2000):
            taken.append(number)
            content = content_of(number, size_bytes)
            yield Incoming(f"{number % 40}/{number}", f"t{number}", [content[:5000], content[5000:]], size_bytes)

    lags = []
    staged = []
    tracemalloc.start()
    try:
        for position, outcome in enumerate(storage.write_many(files())):
            lags.append(len(taken) - position)
            staged.append(outcome)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert staged == [
        Staged(f"object:t{number}", f"{number % 40}/{number}", size_bytes, Proof.BY_STORE, published=True)
        for number in range(2000)
    ]
    assert max(lags) == MOST_JOBS + 1, "they are sent while others are under way"
    assert peak_bytes < 8 * MIB
    found = [b"".join(reading.chunks()) for reading in storage.read_back_many(staged)]  # type: ignore[arg-type]
    assert found == [content_of(number, size_bytes) for number in range(2000)]
    assert all(storage.token_of(f"{number % 40}/{number}") == f"t{number}" for number in (0, 999, 1999))
    assert list(storage.publish(staged)) == [None] * 2000  # type: ignore[arg-type]


def test_objects_of_every_size_go_together(storage: S3Storage, weed: SeaweedServer) -> None:
    sizes = [0, 1, SENT_AT_ONCE_BYTES, SENT_AT_ONCE_BYTES + 1, 2 * MIB, 20 * MIB, 0, 8 * MIB, 8 * MIB + 1, 5]
    contents = [content_of(number, size_bytes) for number, size_bytes in enumerate(sizes)]
    outcomes = list(storage.write_many(incoming(number, [content]) for number, content in enumerate(contents)))
    assert [outcome.size_bytes for outcome in outcomes if isinstance(outcome, Staged)] == sizes
    assert [outcome.published for outcome in outcomes if isinstance(outcome, Staged)] == [
        size_bytes <= 8 * MIB for size_bytes in sizes
    ]
    assert list(storage.publish(outcomes)) == [None] * len(sizes)  # type: ignore[arg-type]
    assert list(storage.leftovers()) == []
    for readings in (
        storage.read_back_many(outcomes),  # type: ignore[arg-type]
        storage.read_many(storage.stat(f"{number:04d}") for number in range(len(sizes))),
    ):
        for content, reading in zip(contents, readings, strict=True):
            chunks = [bytes(chunk) for chunk in reading.chunks()]
            assert b"".join(chunks) == content
            assert max(map(len, chunks), default=0) <= MIB
            assert reading.look() == storage.stat(reading.path)


def test_what_is_under_way_is_bounded_in_bytes(storage: S3Storage) -> None:
    assert storage.capabilities.proves
    chunk = content_of(1, MIB)
    tracemalloc.start()
    try:
        outcomes = list(storage.write_many(incoming(number, [chunk] * 4) for number in range(30)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(isinstance(outcome, Staged) for outcome in outcomes)
    assert peak_bytes < 1.25 * MOST_BYTES


def test_a_name_that_is_taken_is_told_in_its_place_and_never_replaced(storage: S3Storage) -> None:
    list(storage.write_many([incoming(50, [b"what was there"])]))
    outcomes = list(storage.write_many(Incoming(f"{number:04d}", f"new{number}", [b"x"], 1) for number in range(100)))
    error = outcomes.pop(50)
    assert isinstance(error, StorageError)
    assert (error.fault, error.path) == (Fault.EXISTS, "0050")
    assert all(isinstance(outcome, Staged) for outcome in outcomes)
    assert read(storage, "0050") == b"what was there"
    assert storage.token_of("0050") == "t50"


def test_a_file_that_is_withdrawn_and_one_that_cannot_be_named_stop_no_other(storage: S3Storage) -> None:
    withdrawn = WithdrawnError("it changed")
    files = [
        incoming(0),
        incoming(1, failing(withdrawn)),
        incoming(2, name="../elsewhere"),
        incoming(3, failing(withdrawn, 20 * MIB)),
        incoming(4),
    ]
    first, second, third, fourth, fifth = storage.write_many(files)
    assert isinstance(first, Staged)
    assert isinstance(fifth, Staged)
    assert second is fourth is withdrawn
    assert isinstance(third, StorageError)
    assert third.fault is Fault.NAME
    assert paths_in(storage) == ["0000", "0004"]
    assert list(storage.leftovers()) == []


@pytest.mark.parametrize("after_bytes", [10, 20 * MIB])
def test_of_files_that_nobody_was_told_of_nothing_stays_when_a_source_breaks(
    storage: S3Storage, after_bytes: int
) -> None:
    error = KeyboardInterrupt()

    def files() -> Iterator[Incoming]:
        yield from (incoming(number) for number in range(100))
        yield incoming(100, [content_of(100, SENT_AT_ONCE_BYTES + 1)])
        yield incoming(101, [content_of(101, 9 * MIB)])
        yield incoming(102, failing(error, after_bytes))

    told: list[Outcome] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        told.extend(storage.write_many(files()))
    assert caught.value is error
    assert 0 < len(told) < 100
    assert paths_in(storage) == [outcome.path for outcome in told if isinstance(outcome, Staged)]
    assert list(storage.leftovers()) == []


def test_of_files_that_nobody_was_told_of_nothing_stays_when_the_caller_stops(storage: S3Storage) -> None:
    def files() -> Iterator[Incoming]:
        yield incoming(0)
        yield incoming(1, [content_of(1, 9 * MIB)])
        yield from (incoming(number) for number in range(2, MOST_JOBS))
        yield incoming(MOST_JOBS, [content_of(1, 9 * MIB)])  # staged, and waits for room when the first is told

    with closing(storage.write_many(files())) as writing:
        first = next(writing)
    assert isinstance(first, Staged)
    assert paths_in(storage) == ["0000"]
    assert list(storage.leftovers()) == []


def test_a_weak_server_never_replaces_either(tmp_path: Path, open_s3: Open) -> None:
    with RcloneServer(tmp_path, access_key=S3_ACCESS_KEY, secret_key=S3_SECRET_KEY, bucket=BUCKET) as server:
        storage = open_s3(server.endpoint_url)
        list(storage.write_many([incoming(5, [b"what was there"])]))
        outcomes = list(
            storage.write_many(Incoming(f"{number:04d}", f"new{number}", [b"x"], 1) for number in range(40))
        )
        error = outcomes.pop(5)
        assert isinstance(error, StorageError)
        assert error.fault is Fault.EXISTS
        assert all(isinstance(outcome, Staged) for outcome in outcomes)
        (reading,) = storage.read_back_many([Staged("object:t5", "0005", 14, Proof.BY_STORE, published=True)])
        assert b"".join(reading.chunks()) == b"what was there"
        storage.close()


# --------------------------------------------------------------------------------------------------- what goes wrong


def test_lost_answers_damaged_bytes_and_a_busy_server_are_overcome(front: Front, fronted: S3Storage) -> None:
    for number, spoiling in ((3, LoseAnswer()), (7, FlipByte()), (11, BUSY), (15, Answer(200))):
        front.spoil("PUT", f"/{number:04d}", spoiling)
    outcomes = list(fronted.write_many(incoming(number) for number in range(40)))
    assert [outcome.ref for outcome in outcomes if isinstance(outcome, Staged)] == [f"object:t{n}" for n in range(40)]
    assert [puts_of(front, f"/{number:04d}") for number in (2, 3, 7, 11, 15)] == [1, 2, 2, 2, 2]
    for number in range(40):
        assert read(fronted, f"{number:04d}") == content_of(number)


def test_what_always_fails_is_told_of_its_file_alone(front: Front, fronted: S3Storage) -> None:
    front.spoil("PUT", "/0003", BUSY, times=4)
    front.spoil("PUT", "/0005", Answer(200), times=2)
    front.spoil("PUT", "/0007", FlipByte(), times=2)
    outcomes = list(fronted.write_many(incoming(number) for number in range(10)))
    failed = {number: outcome for number, outcome in enumerate(outcomes) if isinstance(outcome, StorageError)}
    assert {number: error.fault for number, error in failed.items()} == dict.fromkeys((3, 5, 7), Fault.IO)
    assert "busy" in str(failed[3])
    assert "no ETag" in str(failed[5])
    assert "not those that were sent" in str(failed[7])
    assert paths_in(fronted) == [f"{number:04d}" for number in range(10) if number not in failed]


def test_keys_that_are_refused_midway_end_the_whole_and_leave_nothing_untold(front: Front, fronted: S3Storage) -> None:
    refusal = b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>"
    front.spoil("PUT", "/0030", Answer(403, refusal), times=2)
    told: list[Outcome] = []
    with pytest.raises(StorageError) as caught:
        told.extend(fronted.write_many(incoming(number) for number in range(100)))
    assert caught.value.fault is Fault.AUTHENTICATION
    assert len(told) == 30
    assert paths_in(fronted) == [f"{number:04d}" for number in range(30)]


def test_a_server_that_dies_midway_ends_the_whole(tmp_path: Path, open_s3: Open) -> None:
    with SeaweedServer(tmp_path, access_key=S3_ACCESS_KEY, secret_key=S3_SECRET_KEY, buckets=[BUCKET]) as server:
        storage = open_s3(server.endpoint_url)

        def files() -> Iterator[Incoming]:
            yield from (incoming(number) for number in range(90))
            server.stop()
            yield from (incoming(number) for number in range(90, 200))

        told: list[Outcome] = []
        with pytest.raises(StorageError) as caught:
            told.extend(storage.write_many(files()))
        assert caught.value.whole_storage
        assert all(isinstance(outcome, Staged) for outcome in told)
        assert "could not be taken back" in "".join(caught.value.__notes__)
        (reading,) = storage.read_back_many(told[:1])  # type: ignore[arg-type]
        with pytest.raises(StorageError) as caught:
            list(reading.chunks())
        assert caught.value.whole_storage
        storage.close()


def test_threads_end_with_the_storage(storage: S3Storage) -> None:
    before = set(threading.enumerate())
    list(storage.write_many(incoming(number, [bytes(SENT_AT_ONCE_BYTES + 1)]) for number in range(20)))
    started = set(threading.enumerate()) - before
    assert 1 < len(started) <= 8
    storage.close()
    assert not any(thread.is_alive() for thread in started)
    with pytest.raises(ValueError, match="not connected"):
        storage.write_many([])


# ------------------------------------------------------------------------------------------------------------ reading


def test_an_object_that_is_missing_or_another_attempts_fails_alone(storage: S3Storage) -> None:
    staged = list(storage.write_many(incoming(number) for number in range(9)))
    storage.delete("0003")
    storage.delete("0005")
    list(storage.write_many([Incoming("0005", "another", [content_of(5)], 100)]))
    faults = {}
    for number, reading in enumerate(storage.read_back_many(staged)):  # type: ignore[arg-type]
        try:
            assert b"".join(reading.chunks()) == content_of(number)
        except StorageError as error:
            faults[reading.path] = error.fault
    assert faults == {"0003": Fault.NOT_FOUND, "0005": Fault.NOT_FOUND}
    adopted = Staged("", "0005", 100, Proof.READ_BACK_PUBLISHED, published=True)
    assert [b"".join(reading.chunks()) for reading in storage.read_back_many([adopted])] == [content_of(5)]


def test_an_object_is_read_whole_though_it_is_larger_or_smaller_than_was_said(storage: S3Storage) -> None:
    list(storage.write_many([incoming(1, [content_of(1, 3 * MIB)]), incoming(2, [b"short"])]))
    told = [Entry(path, 1000, datetime.now(UTC)) for path in ("0001", "0002", "../x", "0001")]
    first, second, third, fourth = storage.read_many(told)
    assert b"".join(first.chunks()) == b"".join(fourth.chunks()) == content_of(1, 3 * MIB)
    assert b"".join(second.chunks()) == b"short"
    assert second.look() == storage.stat("0002")
    with pytest.raises(StorageError) as caught:
        list(third.chunks())
    assert caught.value.fault is Fault.NAME


def test_answers_that_break_off_are_asked_for_again(front: Front, fronted: S3Storage) -> None:
    staged = list(fronted.write_many(incoming(number) for number in range(20)))
    for number, spoiling in ((3, CutBody(10)), (7, LoseAnswer()), (11, BUSY)):
        front.spoil("GET", f"/{number:04d}", spoiling)
    found = [b"".join(reading.chunks()) for reading in fronted.read_back_many(staged)]  # type: ignore[arg-type]
    assert found == [content_of(number) for number in range(20)]


def test_reading_many_may_stop_early(storage: S3Storage) -> None:
    staged = list(storage.write_many(incoming(number) for number in range(100)))
    with closing(storage.read_back_many(staged)) as readings:  # type: ignore[arg-type]
        assert b"".join(next(readings).chunks()) == content_of(0)
    assert [b"".join(reading.chunks()) for reading in storage.read_back_many(staged)][99] == content_of(99)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- publishing


def test_uploads_are_completed_together_and_each_is_told_in_its_place(storage: S3Storage) -> None:
    staged = list(storage.write_many(incoming(number, [content_of(number, 8 * MIB + 1)]) for number in range(6)))
    storage.discard(staged[2].ref, "")  # type: ignore[union-attr]
    errors = list(storage.publish(staged))  # type: ignore[arg-type]
    assert [error and error.fault for error in errors] == [None, None, Fault.NOT_FOUND, None, None, None]
    assert paths_in(storage) == ["0000", "0001", "0003", "0004", "0005"]
    assert list(storage.leftovers()) == []


def test_the_time_of_last_change_is_kept_as_rclone_keeps_it(
    storage: S3Storage, weed: SeaweedServer, base_path: str, tmp_path: Path
) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    files = [
        Incoming("small", "t1", [b"x"], 1, modified_at=moment),
        Incoming("large", "t2", [bytes(9 * MIB)], 9 * MIB, modified_at=moment),
        Incoming("ancient", "t3", [b"x"], 1, modified_at=moment.replace(year=1969)),
    ]
    staged = list(storage.write_many(files))
    staged.append(storage.write("single", "t4", [b"x"], modified_at=moment))
    assert list(storage.publish(staged)) == [None] * 4  # type: ignore[arg-type]
    options = f":s3,provider=SeaweedFS,endpoint='{weed.endpoint_url}',access_key_id={S3_ACCESS_KEY}"
    remote = f"{options},secret_access_key={S3_SECRET_KEY}:{BUCKET}/{base_path}"
    listed = subprocess.run(
        [Path(sys.executable).with_name("rclone"), "lsjson", remote],
        env={**os.environ, "RCLONE_CONFIG": str(tmp_path / "none")},
        capture_output=True,
        check=True,
    )
    times = {item["Name"]: datetime.fromisoformat(item["ModTime"]) for item in json.loads(listed.stdout)}
    assert times.pop("ancient").replace(microsecond=0) == moment.replace(year=1969, microsecond=0)
    assert {name: time.astimezone(UTC) for name, time in times.items() if name != RESERVED} == dict.fromkeys(
        ("small", "large", "single"), moment
    )


def test_seconds_since_1970_are_exact() -> None:
    assert seconds_since_1970(datetime(2026, 1, 1, 1, tzinfo=clock.timezone(timedelta(hours=1)))) == "1767225600.000000"
    assert seconds_since_1970(datetime(1969, 12, 31, 23, 59, 58, 500000, tzinfo=UTC)) == "-1.500000"
    assert seconds_since_1970(datetime(2026, 1, 1, 0, 0, 0, 7, tzinfo=UTC)) == "1767225600.000007"


# ------------------------------------------------------------------------------------------- as botocore would send it

ODD_KEYS = [
    "a b",
    "+",
    "%25",
    "%",
    "é",
    "e\u0301",
    "\U0001f9ea",
    "&<>\"'",
    "?x=1#y",
    "~!@$^*()_-={}[];:,.|`",
    " lead",
    "trail ",
]


def test_requests_are_those_of_boto3(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    monkeypatch.setattr(signed_module, "get_current_datetime", lambda: now)
    arguments = {"Metadata": {"streamweave-token": "t", "mtime": "1.5"}, "ChecksumSHA256": "x", "IfNoneMatch": "*"}
    with recording() as (endpoint_url, requests):
        storage = open_s3(endpoint_url)
        client, signed = storage._bucket.client, storage._bucket.signed
        assert signed is not None
        for key in ODD_KEYS:
            exchange = signed.put(key, b"content", arguments)
            assert exchange is not None
            assert exchange.answer() is not None
            client.put_object(Bucket=BUCKET, Key=key, Body=b"content", **arguments)  # type: ignore[arg-type]
        storage.close()
    assert len(requests) == 2 * len(ODD_KEYS)
    unsigned = {"amz-sdk-invocation-id", "amz-sdk-request", "expect", "accept-encoding", "user-agent"}
    for (our_line, ours), (their_line, theirs) in zip(requests[::2], requests[1::2], strict=True):
        assert our_line == their_line
        assert {name: text for name, text in ours.items() if name not in unsigned} == {
            name: text for name, text in theirs.items() if name not in unsigned
        }


def test_odd_names_are_those_that_boto3_finds(storage: S3Storage, weed: SeaweedServer, base_path: str) -> None:
    stored = [storage.stored_path(f"odd/{name}") for name in ODD_KEYS]
    outcomes = list(storage.write_many(Incoming(path, "t", [path.encode()], 1) for path in stored))
    assert all(isinstance(outcome, Staged) for outcome in outcomes)
    for path in stored:
        found = weed.client().get_object(Bucket=BUCKET, Key=f"{base_path}/{path}")["Body"]
        with closing(found):
            assert found.read() == path.encode()
    assert [b"".join(reading.chunks()).decode() for reading in storage.read_back_many(outcomes)] == stored  # type: ignore[arg-type]


def test_connections_are_kept(weed: SeaweedServer, open_s3: Open) -> None:
    with relay_to(weed, None) as relay:
        storage = open_s3(relay.endpoint_url)
        assert storage.capabilities.proves
        before = relay.accepted
        for start in (0, 200):
            outcomes = list(storage.write_many(incoming(number) for number in range(start, start + 200)))
            assert all(isinstance(outcome, Staged) for outcome in outcomes)
        assert 1 < relay.accepted - before <= signed_module.MOST_CONNECTIONS
        storage.close()


def test_certificates_are_verified_as_boto3_does(
    weed: SeaweedServer, open_s3: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = certified(tmp_path)
    with relay_to(weed, context) as relay:
        with pytest.raises(StorageError, match="certificate") as caught:
            open_s3(relay.endpoint_url)
        assert caught.value.fault is Fault.CONFIGURATION
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        storage = open_s3(relay.endpoint_url)
        assert storage.capabilities.proves
        monkeypatch.setattr(storage._bucket.client, "put_object", None)  # boto3 is not needed
        staged = list(storage.write_many(incoming(number) for number in range(50)))
        assert all(isinstance(outcome, Staged) for outcome in staged)
        found = [b"".join(reading.chunks()) for reading in storage.read_back_many(staged)]  # type: ignore[arg-type]
        assert found == [content_of(number) for number in range(50)]
        trusted = storage._bucket.client._endpoint.http_session  # type: ignore[attr-defined]
        storage._bucket.signed.close()  # type: ignore[union-attr]
        monkeypatch.setattr(trusted, "_verify", True)
        assert storage._bucket.signed.get("x", most_bytes=1) is None, "unknown authorities are refused here, too"  # type: ignore[union-attr]
        storage.close()


def test_behind_a_proxy_all_is_left_to_boto3(
    weed: SeaweedServer, front: Front, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", front.endpoint_url)
    monkeypatch.setenv("no_proxy", "")
    storage = open_s3(weed.endpoint_url)
    staged = list(storage.write_many(incoming(number) for number in range(20)))
    assert all(isinstance(outcome, Staged) for outcome in staged)
    assert storage._bucket.signed is None
    assert puts_of(front, "/0007") == 1
    found = [b"".join(reading.chunks()) for reading in storage.read_back_many(staged)]  # type: ignore[arg-type]
    assert found == [content_of(number) for number in range(20)]


# ----------------------------------------------------------------------------------------------- answers that are odd

GOOD = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 2\r\n\r\nab'


@pytest.mark.parametrize(("said", "understood", "is_kept"), [
    (GOOD, True, True),
    (GOOD.replace(b"ETag", b"Connection: close\r\nETag"), True, False),
    (GOOD + b"HTTP/1.1 200 OK\r\n", False, False),
    (GOOD[:-1], False, False),
    (GOOD[:20], False, False),
    (b"", False, False),
    (GOOD.replace(b"1.1", b"1.0"), False, False),
    (GOOD.replace(b"200", b"two"), False, False),
    (GOOD.replace(b": 2", b": 3"), False, False),
    (GOOD.replace(b": 2", b": -2"), False, False),
    (GOOD.replace(b": 2", b": 99999999999"), False, False),
    (GOOD.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked"), False, False),
    (GOOD.replace(b"ETag", b"Transfer-Encoding: chunked\r\nETag"), False, False),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, False, False),
    (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, False, False),
    (b"\r\n\r\n", False, False),
    (b"\xff" * 100 + b"\r\n\r\n", False, False),
])  # fmt: skip
def test_only_plain_answers_are_understood(said: bytes, understood: bool, is_kept: bool) -> None:
    with Pair() as pair:
        connections = KeptConnections(lambda: pair, most=1, read_timeout=5)
        exchange = connections.send(b"request", b"", most_bytes=10)
        sender = threading.Thread(target=pair.say, args=(said,))
        sender.start()
        answer = exchange.answer()
        sender.join()
        assert (answer is not None) == understood
        assert pair.is_closed != is_kept
        if answer is not None:
            assert (answer.status, answer.headers["etag"], bytes(answer.content)) == (200, '"x"', b"ab")
        connections.close()
        assert pair.is_closed


def test_who_never_answers_is_given_up() -> None:
    pairs = [Pair(), Pair()]
    connections = KeptConnections(iter(pairs).__next__, most=1, read_timeout=0.05)
    silent = connections.send(b"request", b"", most_bytes=10)
    second = connections.send(b"request", b"", most_bytes=10)
    assert silent.answer() is None
    assert second.answer() is None
    connections.close()
    for pair in pairs:
        pair.far.close()


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again() -> None:
    pairs = [Pair(), Pair()]
    connections = KeptConnections(iter(pairs).__next__, most=1, read_timeout=5)
    exchange = connections.send(b"request", b"", most_bytes=10)
    pairs[0].far.sendall(GOOD)
    assert exchange.answer() is not None
    pairs[0].far.close()
    connections.send(b"another", b"", most_bytes=10)
    assert pairs[1].far.recv(100) == b"another"
    connections.close()
    pairs[1].far.close()
