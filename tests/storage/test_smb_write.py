"""How an SMB storage takes in and publishes many files: what is asked of the server, and what is left when it fails."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from harvest.demo.servers import SambaServer
from harvest.storage.base import CHUNK_BYTES, RESERVED, Fault, Incoming, Staged, StorageError
from harvest.storage.smb import SmbStorage, messages, write
from harvest.storage.smb.connection import PipelinedConnection
from harvest.storage.smb.exchange import Connection, Exchange
from harvest.storage.smb.hidden import TEMPORARY_FOLDERS, temporary
from harvest.storage.smb.messages import Command, Request
from harvest.storage.smb.plain import PlainConnection
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder

LARGE_BYTES = 6 * CHUNK_BYTES


@dataclass
class Watch:
    """What is asked of the server, and how much at once."""

    compounds: list[tuple[Request, ...]] = field(default_factory=list)
    under_way: set[Exchange] = field(default_factory=set)
    most: int = 0
    most_bytes: int = 0

    def submitted(self, exchange: Exchange, requests: tuple[Request, ...]) -> None:
        self.compounds.append(tuple(request._replace(payload=bytes(len(request.payload))) for request in requests))
        self.under_way = {one for one in self.under_way if one.missing} | {exchange}
        self.most = max(self.most, len(self.under_way))

    def commands(self) -> list[tuple[int, ...]]:
        return [tuple(request.command for request in requests) for requests in self.compounds]

    def opened(self) -> Counter[str]:
        """The names in the heads of the compounds, below the base folder."""
        found: Counter[str] = Counter()
        for first, *_ in self.compounds:
            if first.command == Command.CREATE:
                found[first.body[56:].decode("utf-16-le").partition("\\")[2].replace("\\", "/")] += 1
        return found


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    kinds: tuple[type[Connection], ...] = (PipelinedConnection, PlainConnection)
    for kind in kinds:
        monkeypatch.setattr(kind, "submit", _watched(kind.submit, watch))
    return watch


def _watched(submit: Callable[..., Exchange], watch: Watch) -> Callable[..., Exchange]:
    def watched(connection: Connection, *requests: Request, related: bool = True) -> Exchange:
        exchange = submit(connection, *requests, related=related)
        watch.submitted(exchange, requests)
        return exchange

    return watched


@pytest.fixture(params=["pipelined", "plain"])
def storage(
    request: pytest.FixtureRequest, samba: SambaServer, archive_dir: ShareFolder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SmbStorage]:
    monkeypatch.setattr(SmbStorage, "pipelined", request.param == "pipelined")
    config = {
        "host": samba.host,
        "port": samba.port,
        "share": archive_dir.share,
        "username": SMB_USER,
        "password": SMB_PASSWORD,
    }
    with SmbStorage.from_config(archive_dir.base_path, config) as storage:
        yield storage


def files(count: int, *, prefix: str = "t", size_bytes: int = 100) -> Iterator[Incoming]:
    for number in range(count):
        yield Incoming(f"run/{number % 4}/{number}", f"{prefix}{number}", pieces(number, size_bytes), size_bytes)


def pieces(number: int, size_bytes: int) -> Iterator[bytes]:
    for start in range(0, size_bytes, CHUNK_BYTES):
        yield bytes([number % 251]) * min(CHUNK_BYTES, size_bytes - start)


def staged_of(storage: SmbStorage, incoming: Iterator[Incoming]) -> list[Staged]:
    results = list(storage.write_many(incoming))
    assert all(isinstance(result, Staged) for result in results), results
    return [result for result in results if isinstance(result, Staged)]


def tokens(storage: SmbStorage) -> set[str]:
    return {token for _, token in storage.leftovers()}


# ------------------------------------------------------------------------------------------------------------ taking in


def test_a_small_file_is_one_compound_that_brings_it_to_the_disk(storage: SmbStorage, watch: Watch) -> None:
    staged_of(storage, files(1, prefix="before"))  # which makes the folders
    watch.compounds.clear()

    staged_of(storage, files(20))

    expected = (Command.CREATE, Command.WRITE, Command.FLUSH, Command.CLOSE)
    assert watch.commands() == [expected] * 20


def test_a_large_file_is_brought_to_the_disk_when_all_of_it_is_written(storage: SmbStorage, watch: Watch) -> None:
    staged_of(storage, files(1, size_bytes=LARGE_BYTES))

    commands = [command for compound in watch.commands() for command in compound]
    assert commands[-2:] == [Command.FLUSH, Command.CLOSE]
    assert commands.count(Command.WRITE) == LARGE_BYTES // write.PIECE_BYTES


def test_no_more_is_under_way_than_allowed(storage: SmbStorage, watch: Watch) -> None:
    storage.requests_in_flight = 5
    staged_of(storage, files(1, prefix="before"))  # which makes the folders
    watch.most = 0

    sizes = [10, 10, 10, LARGE_BYTES, 10, 10, LARGE_BYTES, *[10] * 20]
    incoming = (Incoming(f"{n}", f"t{n}", pieces(n, size), size) for n, size in enumerate(sizes))
    staged = staged_of(storage, incoming)
    written = watch.most
    list(storage.publish(staged))

    assert written == (5 if SmbStorage.pipelined else 1)
    assert watch.most == written


def test_no_more_bytes_are_held_than_allowed(storage: SmbStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    take = write._Batch._take

    def watched(batch: write._Batch, file: Incoming) -> object:
        held.append(batch._held_bytes)
        return take(batch, file)

    monkeypatch.setattr(write._Batch, "_take", watched)
    storage.requests_in_flight = 1000

    staged_of(storage, files(40, size_bytes=write.SMALL_BYTES))

    assert max(held) <= write.IN_FLIGHT_BYTES


def test_staged_files_are_spread_over_small_hidden_folders(storage: SmbStorage, archive_dir: ShareFolder) -> None:
    staged = staged_of(storage, files(200))

    folders = Counter(temporary(item.ref).rpartition("/")[0] for item in staged)
    assert set(folders) == set(TEMPORARY_FOLDERS)
    assert max(folders.values()) < 40
    assert tokens(storage) == {item.ref for item in staged}


def test_hidden_folders_that_vanish_meanwhile_are_made_again(storage: SmbStorage, archive_dir: ShareFolder) -> None:
    def incoming() -> Iterator[Incoming]:
        for number, file in enumerate(files(120)):
            if number % 50 == 0:
                shutil.rmtree(archive_dir.path / RESERVED, ignore_errors=True)
            yield file

    assert len(staged_of(storage, incoming())) == 120


def test_whoever_stops_listening_leaves_nothing_that_was_not_told(storage: SmbStorage) -> None:
    told = []
    results = storage.write_many(files(50))
    for result in results:
        told.append(result)
        if len(told) == 7:
            break
    results.close()

    assert tokens(storage) == {result.ref for result in told if isinstance(result, Staged)}


def test_a_large_file_that_is_left_half_way_is_gone(storage: SmbStorage) -> None:
    class SourceLostError(Exception):
        pass

    def lost() -> Iterator[bytes]:
        yield from pieces(1, LARGE_BYTES)
        raise SourceLostError

    def incoming() -> Iterator[Incoming]:
        yield from files(3)
        yield Incoming("lost", "lost", lost(), 2 * LARGE_BYTES)

    told: list[Staged] = []
    with pytest.raises(SourceLostError):
        told.extend(result for result in storage.write_many(incoming()) if isinstance(result, Staged))

    assert tokens(storage) == {item.ref for item in told}


def test_an_error_of_the_source_is_not_taken_for_one_of_ours(storage: SmbStorage) -> None:
    of_the_source = StorageError(Fault.LOCKED, "The instrument holds it open.")

    def locked() -> Iterator[bytes]:
        yield from pieces(1, LARGE_BYTES)
        raise of_the_source

    for size_bytes in (1, 2 * LARGE_BYTES):
        with pytest.raises(StorageError) as caught:
            list(storage.write_many([Incoming("fid", "t", locked(), size_bytes)]))
        assert caught.value is of_the_source
    assert tokens(storage) == set()


# ----------------------------------------------------------------------------------------------------------- publishing


def test_a_missing_folder_is_made_once_for_a_batch(storage: SmbStorage, watch: Watch) -> None:
    staged = staged_of(storage, files(40))
    watch.compounds.clear()

    assert set(storage.publish(staged)) == {None}

    opened = watch.opened()
    assert {folder: opened[folder] for folder in ("run", "run/0", "run/3")} == {"run": 2, "run/0": 2, "run/3": 2}
    # Each file: linked, and its temporary name removed; of each folder one is tried before the folder is there.
    assert sum(count for path, count in opened.items() if path.startswith(RESERVED)) == 2 * 40 + 4


def test_folders_that_are_there_are_not_made(storage: SmbStorage, watch: Watch) -> None:
    assert set(storage.publish(staged_of(storage, files(8, prefix="a")))) == {None}
    second = (Incoming(f"{file.path}.b", f"b{file.token}", file.chunks, 100) for file in files(40))
    staged = staged_of(storage, second)
    watch.compounds.clear()

    assert set(storage.publish(staged)) == {None}

    assert watch.opened()["run/0"] == 1  # to be flushed


def test_no_folder_is_made_for_what_is_gone(storage: SmbStorage, archive_dir: ShareFolder) -> None:
    staged = staged_of(storage, files(8))
    for item in staged:
        storage.discard(item.ref, item.path)

    faults = [error and error.fault for error in storage.publish(staged)]

    assert faults == [Fault.NOT_FOUND] * 8
    assert not (archive_dir.path / "run").exists()


def test_what_stands_where_a_folder_is_needed_stops_no_other(storage: SmbStorage, archive_dir: ShareFolder) -> None:
    staged = staged_of(storage, files(12))
    (archive_dir.path / "run").mkdir()
    (archive_dir.path / "run/1").write_bytes(b"a file")

    errors = list(storage.publish(staged))

    assert [error is None for error in errors] == [number % 4 != 1 for number in range(12)]
    assert tokens(storage) == {staged[number].ref for number in (1, 5, 9)}
    assert (archive_dir.path / "run/1").read_bytes() == b"a file"


def test_a_path_that_leads_elsewhere_stops_no_other(storage: SmbStorage, archive_dir: ShareFolder) -> None:
    staged = staged_of(storage, files(3))
    staged[1] = Staged(staged[1].ref, "../escape", staged[1].size_bytes, staged[1].proof)

    errors = list(storage.publish(staged))

    assert [error and error.fault for error in errors] == [None, Fault.NAME, None]
    assert not (archive_dir.path.parent / "escape").exists()


def test_a_temporary_name_goes_when_the_new_one_is_durable(storage: SmbStorage, watch: Watch) -> None:
    staged = staged_of(storage, files(20))
    watch.compounds.clear()

    assert set(storage.publish(staged)) == {None}

    commands = watch.commands()
    links = [index for index, compound in enumerate(commands) if Command.SET_INFO in compound]
    flushes = [index for index, compound in enumerate(commands) if Command.FLUSH in compound]
    removals = [
        index
        for index, (first, *_) in enumerate(watch.compounds)
        if first.body[40:44]
        == (messages.A_FILE | messages.THE_LINK_ITSELF | messages.DELETE_ON_CLOSE).to_bytes(4, "little")
    ]
    assert len(flushes) == 6  # the four folders, the one they are in, and the base folder
    assert len(removals) == 20
    assert max(links) < min(flushes)
    assert max(flushes) < min(removals)


def test_a_server_that_has_no_links_renames_all(storage: SmbStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(path: str, file_id: bytes = messages.RELATED, *, replace: bool = False) -> Request:
        return messages.set_info(254, path.encode("utf-16-le"), file_id)  # what the server does not know

    monkeypatch.setattr(messages, "link", no_link)
    assert list(storage.publish(staged_of(storage, files(1, prefix="before")))) == [None]

    errors = list(storage.publish(staged_of(storage, files(30))))

    assert [error and error.fault for error in errors] == [Fault.EXISTS] + [None] * 29
    assert tokens(storage) == {"t0"}
