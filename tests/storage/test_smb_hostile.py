"""SMB storages against a server that lies, stalls and hangs up: a clear error in good time, or the right bytes."""

from __future__ import annotations

import os
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from smbprotocol.header import Commands
from smbprotocol.session import Session

from harvest.demo.servers import SambaServer, Share
from harvest.storage.base import Entry, Fault, Incoming, Staged, StorageError, Unreadable
from harvest.storage.smb import SmbStorage, connection
from harvest.storage.smb.hidden import temporary
from tests.servers.hostile_smb import HEADER_BYTES, HostileSmb, Message, Script, Wire, linked

USER, PASSWORD = "svc-nmr", "nmr-Passw0rd"
PATIENCE_SECONDS = 0.4
"""How long the storage under test waits: for any sign of life, for the end of a message, for an answer."""

PENDING = 0x0000_0103
BROKEN = frozenset({Fault.UNREACHABLE})
SILENT = frozenset({Fault.TIMEOUT})
LIED = frozenset({Fault.UNREACHABLE, Fault.TIMEOUT, Fault.IO, Fault.CHANGED})
"""What a lie that bears a good signature may end in: which one depends on what it was told about."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "share").mkdir()
    shares = {
        "signed": Share(folder / "share"),
        "encrypted": Share(folder / "share", options={"smb encrypt": "required"}),
    }
    with SambaServer(folder / "server", shares, {USER: PASSWORD}) as server:
        yield server


@pytest.fixture
def relay(server: SambaServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileSmb]:
    with HostileSmb(server.host, server.port) as relay:
        log_in = Session.connect

        def log_in_and_tell(session: Session) -> None:
            log_in(session)
            relay.learn(session)

        monkeypatch.setattr(Session, "connect", log_in_and_tell)
        monkeypatch.setattr(connection, "SILENCE_SECONDS", PATIENCE_SECONDS)
        monkeypatch.setattr(connection, "FRAME_SECONDS", 2 * PATIENCE_SECONDS)
        monkeypatch.setattr(connection, "ANSWER_SECONDS", 4 * PATIENCE_SECONDS)
        monkeypatch.setattr(connection, "GOODBYE_SECONDS", PATIENCE_SECONDS)
        yield relay


@dataclass
class Scene:
    """A folder on the hostile server, a storage on it, and what it is asked to do."""

    storage: SmbStorage
    folder: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    attempts: int = 0
    staged: list[Staged] = field(default_factory=list)

    def plant(self, sizes: list[int]) -> None:
        for number, size_bytes in enumerate(sizes):
            path = f"run{number % 3}/{number}"
            self.contents[path] = os.urandom(size_bytes)
            (self.folder / path).parent.mkdir(exist_ok=True)
            (self.folder / path).write_bytes(self.contents[path])

    def walk(self) -> list[StorageError]:
        """Whoever is found is there; who is not was reported."""
        found: list[Entry | Unreadable] = []
        error = _error_of(lambda: found.extend(self.storage.walk()))
        entries = {item.path: item.size_bytes for item in found if isinstance(item, Entry)}
        errors = [item.error for item in found if isinstance(item, Unreadable)] + ([error] if error else [])
        assert entries.items() <= {path: len(content) for path, content in self.contents.items()}.items()
        assert len(entries) == len(self.contents) or errors
        return errors

    def read(self) -> list[StorageError]:
        errors: list[StorageError] = []
        complete = []

        def read_all() -> None:
            for reading in self.storage.read_many(self.listing()):
                received: list[bytes] = []
                if error := _error_of(lambda: received.extend(map(bytes, reading.chunks()))):  # noqa: B023 called here
                    errors.append(error)
                else:
                    complete.append(reading.path)
                    assert b"".join(received) == self.contents[reading.path]

        if error := _error_of(read_all):
            errors.append(error)
        assert len(complete) == len(self.contents) or errors
        return errors

    def write(self) -> list[StorageError]:
        self.attempts += 1
        results: list[Staged | Exception] = []
        incoming = [
            Incoming(f"to/{path}", f"a{self.attempts}-{number}", _pieces(content), len(content))
            for number, (path, content) in enumerate(self.contents.items())
        ]
        error = _error_of(lambda: results.extend(self.storage.write_many(incoming)))
        staged = [item for item in results if isinstance(item, Staged)]
        error = error or _error_of(lambda: self.storage.make_durable(staged))
        by_path = {f"to/{path}": content for path, content in self.contents.items()}
        for item in staged:
            assert (self.folder / temporary(item.ref)).read_bytes() == by_path[item.path]
        errors = [item for item in results if isinstance(item, StorageError)] + ([error] if error else [])
        assert len(staged) == len(self.contents) or errors
        return errors

    def stage(self) -> None:
        self.attempts += 1
        incoming = [
            Incoming(f"at{self.attempts}/{path}", f"p{self.attempts}-{number}", _pieces(content), len(content))
            for number, (path, content) in enumerate(self.contents.items())
        ]
        self.staged = [item for item in self.storage.write_many(incoming) if isinstance(item, Staged)]
        assert len(self.staged) == len(self.contents)

    def publish(self) -> list[StorageError]:
        """What was staged before. Whatever is said to be published is, and nothing is in pieces."""
        results: list[StorageError | None] = []
        error = _error_of(lambda: results.extend(self.storage.publish(self.staged)))
        assert len(results) == len(self.staged)
        for item, result in zip(self.staged, results, strict=True):
            final = self.folder / item.path
            if result is None or final.exists():
                assert final.read_bytes() == self.contents[item.path.partition("/")[2]]
        return [result for result in results if result is not None] + ([error] if error else [])

    def listing(self) -> list[Entry]:
        stats = {path: (self.folder / path).stat() for path in self.contents}
        return [Entry(path, stat.st_size, _utc(stat.st_mtime)) for path, stat in stats.items()]


SMALL = [8192, 0, 1, 5000, 65536, 70_000] * 8
LARGE = [5 << 20, (3 << 20) + 17]
pytestmark = pytest.mark.matrix

WAYS: dict[str, tuple[list[int], Callable[[Scene], list[StorageError]]]] = {
    "walk": (SMALL, Scene.walk),
    "read small": (SMALL, Scene.read),
    "read large": (LARGE, Scene.read),
    "write small": (SMALL, Scene.write),
    "write large": (LARGE, Scene.write),
    "publish": (SMALL, Scene.publish),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scene(relay: HostileSmb, server: SambaServer, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    yield from _scene(relay, server, "signed", tmp_path.name)


@pytest.fixture
def encrypted_scene(relay: HostileSmb, server: SambaServer, tmp_path: Path) -> Iterator[Scene]:
    yield from _scene(relay, server, "encrypted", tmp_path.name)


def _scene(relay: HostileSmb, server: SambaServer, share: str, name: str) -> Iterator[Scene]:
    folder = server.shares[share].path / name
    folder.mkdir()
    config = {"host": relay.host, "port": relay.port, "share": share, "username": USER, "password": PASSWORD}
    storage = SmbStorage.from_config(name, config)
    with storage:
        yield Scene(storage, folder)


def _error_of(work: Callable[[], object]) -> StorageError | None:
    try:
        work()
    except StorageError as error:
        return error
    return None


def _pieces(content: bytes) -> Iterator[memoryview]:
    """As a reader gives them: each in the buffer of the one before."""
    buffer = bytearray(1 << 20)
    for start in range(0, len(content), len(buffer)):
        piece = content[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]
        buffer[:] = bytes(len(buffer))


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# ------------------------------------------------------------------------------------------------------- the scripts


def later(script: Script, *, frames: int = 3) -> Script:
    """`script`, after a few honest frames, when much is under way."""
    seen = 0

    def run(wire: Wire, frame: bytes) -> None:
        nonlocal seen
        seen += 1
        if seen <= frames:
            wire.send(frame)
        else:
            script(wire, frame)

    return run


def each(change: Callable[[Message], None]) -> Script:
    """Change every answer, and sign it as the server would."""

    def run(wire: Wire, frame: bytes) -> None:
        messages = wire.messages(frame)
        for message in messages:
            change(message)
        wire.tell(messages, like=frame)

    return run


def of(command: int, change: Callable[[Message], None]) -> Script:
    """Change the good answers to one kind of request."""

    def run(message: Message) -> None:
        if message.command == command and message.status == 0:
            change(message)

    return each(run)


def put(layout: str, offset: int, value: int) -> Callable[[Message], None]:
    return lambda message: message.put(layout, offset, value)


def error_instead(status: int, *, signed: bool = True) -> Callable[[Message], None]:
    """An error in place of the answer ([MS-SMB2] 2.2.2)."""

    def change(message: Message) -> None:
        message[HEADER_BYTES:] = struct.pack("<HBBIB", 9, 0, 0, 0, 0)
        message.put("I", 8, status)
        message.put("I", 20, 0)
        if not signed:
            unsign(message)

    return change


def unsign(message: Message) -> None:
    message.put("I", 16, message.field("I", 16) & ~0x8)
    message[48:64] = bytes(16)


def cut(length: int) -> Callable[[Message], None]:
    """The answer ends after some bytes of its body."""

    def change(message: Message) -> None:
        del message[HEADER_BYTES + length :]
        message.put("I", 20, 0)

    return change


def first_only(change: Callable[[Message], None]) -> Script:
    """The first of a compound's answers, changed, is the whole frame."""

    def run(wire: Wire, frame: bytes) -> None:
        message = wire.messages(frame)[0]
        change(message)
        wire.tell([message], like=frame)

    return run


def all_fail(status: int) -> Script:
    """Every request of a compound fails in the same way."""

    def run(wire: Wire, frame: bytes) -> None:
        messages = wire.messages(frame)
        for message in messages:
            error_instead(status)(message)
        wire.tell(linked(messages), like=frame)

    return run


def flip_last_bit(wire: Wire, frame: bytes) -> None:
    wire.send(frame[:-1] + bytes((frame[-1] ^ 1,)))


def flip_signature(wire: Wire, frame: bytes) -> None:
    wire.send(frame[:48] + bytes((frame[48] ^ 1,)) + frame[49:])


def send_unsigned(wire: Wire, frame: bytes) -> None:
    messages = wire.messages(frame)
    for message in messages:
        unsign(message)
    wire.send(b"".join(messages))


def tell_in_clear(wire: Wire, frame: bytes) -> None:
    wire.send(b"".join(wire.messages(frame)))


def twice(wire: Wire, frame: bytes) -> None:
    wire.send(frame)
    wire.send(frame)


def replay() -> Script:
    """The first answer, again and again."""
    kept: list[bytes] = []

    def run(wire: Wire, frame: bytes) -> None:
        kept.append(frame)
        wire.send(kept[0])

    return run


def late_and_backwards(wire: Wire, frame: bytes) -> None:
    """What comes within a tenth of a second is sent in reverse order after it, unless it says that more will come."""
    if any(message.status == PENDING for message in wire.messages(frame)):
        wire.send(frame)
        return
    with wire.keeping:
        if not wire.kept:
            threading.Timer(0.1, _send_backwards, [wire]).start()
        wire.kept.append(frame)


def _send_backwards(wire: Wire) -> None:
    with wire.keeping, suppress(OSError):  # the client may have hung up
        while wire.kept:
            wire.send(wire.kept.pop())


def pending_first(wire: Wire, frame: bytes) -> None:
    """An interim answer before each real one ([MS-SMB2] 3.3.4.2); the real one then has the asynchronous header."""
    messages = wire.messages(frame)
    for message in messages:
        wire.tell([_interim(message)], like=frame)
        message.put("I", 16, message.field("I", 16) | 0x2)
        message.put("Q", 32, 77)
        message.put("H", 14, 0)  # its credits came with the interim answer
    wire.tell(messages, like=frame)


def pending_for_ever(wire: Wire, frame: bytes) -> None:
    message = wire.messages(frame)[0]
    while not wire.ended.wait(0.05):
        wire.tell([_interim(message)], like=frame)


def _interim(message: Message) -> Message:
    interim = Message(message)
    error_instead(PENDING)(interim)
    interim.put("I", 16, (message.field("I", 16) | 0x2) & ~0x4)
    interim.put("Q", 32, 77)
    return interim


def break_first(wire: Wire, frame: bytes) -> None:
    """Breaks of an oplock ([MS-SMB2] 2.2.23.1) and a lease (2.2.23.2) that nobody holds, before each answer."""
    oplock = struct.pack("<HBBI16s", 24, 0, 0, 0, bytes(16))
    lease = struct.pack("<HHI16sIIIII", 44, 1, 0, bytes(16), 1, 0, 0, 0, 0)
    header = struct.pack("<4sHHIHHIIQIIQ16s", b"\xfeSMB", 64, 0, 0, 18, 0, 1, 0, 0xFFFF_FFFF_FFFF_FFFF, 0, 0, 0, b"")
    for body in (oplock, lease):
        wire.tell([Message(header + body)], like=frame)
    wire.send(frame)


def say_nothing(wire: Wire, frame: bytes) -> None:
    pass


def drip(wire: Wire, frame: bytes) -> None:
    wire.drip(len(frame).to_bytes(4, "big") + frame, seconds_each=PATIENCE_SECONDS / 4)


def stop_half_way(wire: Wire, frame: bytes) -> None:
    wire.send_raw(len(frame).to_bytes(4, "big") + frame[: len(frame) // 2])
    wire.ended.wait()


def hang_up_half_way(wire: Wire, frame: bytes) -> None:
    wire.send_raw(len(frame).to_bytes(4, "big") + frame[: len(frame) // 2])
    wire.end()


def octets(raw: bytes) -> Script:
    """Something that is no answer, and then nothing."""

    def run(wire: Wire, frame: bytes) -> None:
        wire.send_raw(raw)
        wire.ended.wait()

    return run


FLOOD = b"\x00\xff\xff\xff\xfeSMB" + bytes((1 << 24) - 5)
"""A frame of 16 MB."""


UNSIGNED_LIES: dict[str, tuple[Script, frozenset[Fault]]] = {
    "a flipped bit": (flip_last_bit, BROKEN),
    "a wrong signature": (flip_signature, BROKEN),
    "no signature": (send_unsigned, BROKEN),
    "an unsigned error": (first_only(error_instead(0xC000_0022, signed=False)), BROKEN),
    "an old answer again": (replay(), BROKEN | SILENT),
    "every answer twice": (twice, BROKEN),
    "a frame of 16 MB announced": (octets(b"\x00\xff\xff\xff"), BROKEN | SILENT),
    "a frame of 16 MB sent": (octets(FLOOD), BROKEN | SILENT),
    "an empty frame": (octets(bytes(4)), BROKEN),
    "a short frame": (octets(b"\0\0\0\x05\xfeSMB@"), BROKEN),
    "a frame that is none": (octets(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9), BROKEN | SILENT),
    "zeros": (octets(b"\0\0\1\0" + bytes(256)), BROKEN),
    "SMB 1": (octets(b"\0\0\0\x40\xffSMB" + bytes(60)), BROKEN),
    "a compressed frame": (octets(b"\0\0\0\x40\xfcSMB" + bytes(60)), BROKEN),
    "an encrypted frame out of the blue": (octets(b"\0\0\0\x80\xfdSMB" + bytes(124)), BROKEN),
    "nothing": (say_nothing, SILENT),
    "a byte now and then": (drip, SILENT),
    "half an answer": (stop_half_way, SILENT),
    "half an answer and a farewell": (hang_up_half_way, BROKEN),
    "a farewell": (lambda wire, frame: wire.end(), BROKEN),
    "half a farewell": (lambda wire, frame: wire.half_close(), BROKEN),
    "a reset": (lambda wire, frame: wire.reset(), BROKEN),
}

SIGNED_LIES: dict[str, tuple[Script, frozenset[Fault]]] = {
    "another message's id": (each(lambda message: message.put("Q", 24, message.message_id + 1000)), LIED),
    "another command": (each(put("H", 12, Commands.SMB2_ECHO)), LIED),
    "no answer's flag": (each(lambda message: message.put("I", 16, message.field("I", 16) & ~1)), LIED),
    "a header of another size": (each(put("H", 4, 65)), LIED),
    "a next command inside the header": (each(put("I", 20, 8)), LIED),
    "a next command beyond the frame": (each(put("I", 20, 0x7FFF_FFF8)), LIED),
    "a next command at an odd place": (each(put("I", 20, 67)), LIED),
    "a next command of all ones": (each(put("I", 20, 0xFFFF_FFFF)), LIED),
    "no body": (first_only(cut(0)), LIED),
    "half a body": (first_only(cut(7)), LIED),
    "pending for ever": (pending_for_ever, SILENT),
    "notify clean-up": (all_fail(0x0000_010B), LIED),
    "the session is deleted": (all_fail(0xC000_0203), BROKEN),
    "the session has expired": (all_fail(0xC000_035C), BROKEN),
    "the share is gone": (all_fail(0xC000_00C9), LIED),
    "an unknown status": (all_fail(0xCAFE_CAFE), LIED),
}

HARMLESS: dict[str, Script] = {
    "late and backwards": late_and_backwards,
    "pending first": pending_first,
    "breaks of oplocks and leases": break_first,
    "one credit at a time": each(put("H", 14, 1)),
    "all credits at once": each(put("H", 14, 0xFFFF)),
}

READ, WRITE, LIST = Commands.SMB2_READ, Commands.SMB2_WRITE, Commands.SMB2_QUERY_DIRECTORY
BODY_LIES: dict[str, tuple[str, Script]] = {
    # [MS-SMB2] 2.2.20: DataOffset, DataLength; 2.2.22: Count; 2.2.34: OutputBufferOffset, OutputBufferLength.
    "a read body of another size": ("read", of(READ, put("H", 64, 5))),
    "a written body of another size": ("write", of(WRITE, put("H", 64, 5))),
    "a listing's body of another size": ("walk", of(LIST, put("H", 64, 5))),
    "data before the body": ("read", of(READ, put("B", 66, 1))),
    "data behind the frame": ("read", of(READ, put("B", 66, 0xFF))),
    "more data than sent": ("read", of(READ, put("I", 68, 0x7FFF_FFFF))),
    "all ones of data": ("read", of(READ, put("I", 68, 0xFFFF_FFFF))),
    "less data than asked for": ("read", of(READ, lambda message: message.put("I", 68, message.field("I", 68) // 2))),
    "no data": ("read", of(READ, put("I", 68, 0))),
    "more written than sent": ("write", of(WRITE, put("I", 68, 0x7FFF_FFFF))),
    "less written than sent": (
        "write",
        of(WRITE, lambda message: message.put("I", 68, max(message.field("I", 68) - 1, 0))),
    ),
    "nothing written": ("write", of(WRITE, put("I", 68, 0))),
    "a listing before the body": ("walk", of(LIST, put("H", 66, 0))),
    "a listing behind the frame": ("walk", of(LIST, put("H", 66, 0xFFFF))),
    "more listing than sent": ("walk", of(LIST, put("I", 68, 0x7FFF_FFFF))),
    "a listing that overlaps itself": ("walk", of(LIST, put("I", 72, 8))),
    "a listing that leads out of itself": ("walk", of(LIST, put("I", 72, 0x7FFF_FFF8))),
    "a name longer than the listing": ("walk", of(LIST, put("I", 72 + 60, 0x7FFF_FFFE))),
    "a name of no length": ("walk", of(LIST, put("I", 72 + 60, 0))),
    "a size below zero": ("walk", of(LIST, put("q", 72 + 40, -1))),
}


# ---------------------------------------------------------------------------------------------------------- the tests


def harmed(scene: Scene, relay: HostileSmb, way: str, script: Script) -> list[StorageError]:
    """What goes wrong when the server turns hostile while it is at work; then all is done again, on a new connection,
    and must go well."""
    sizes, work = WAYS[way]
    scene.plant(sizes)
    assert work(scene) == []  # so that every connection it takes is there
    if way == "publish":
        scene.stage()
    relay.harm(script)
    errors = work(scene)
    scene.storage.close()
    if way == "publish":
        scene.stage()
    assert work(scene) == []
    return errors


def told(errors: list[StorageError], allowed: frozenset[Fault]) -> bool:
    """Whether the first error is one of `allowed`; the next files may find the connection lost."""
    faults = [error.fault for error in errors]
    return bool(errors) and faults[0] in allowed and set(faults) <= allowed | BROKEN and all(map(str, errors))


@pytest.mark.parametrize("lie", UNSIGNED_LIES)
def test_what_nobody_could_sign_is_told(scene: Scene, relay: HostileSmb, way: str, lie: str) -> None:
    script, allowed = UNSIGNED_LIES[lie]

    errors = harmed(scene, relay, way, later(script))

    assert told(errors, allowed), errors


@pytest.mark.parametrize("lie", SIGNED_LIES)
def test_what_a_server_lies_about_is_told(scene: Scene, relay: HostileSmb, way: str, lie: str) -> None:
    script, allowed = SIGNED_LIES[lie]

    errors = harmed(scene, relay, way, later(script))

    assert told(errors, allowed), errors


@pytest.mark.parametrize("way", ["walk", "read small", "write small"])
def test_a_compound_that_is_answered_in_part_is_told(scene: Scene, relay: HostileSmb, way: str) -> None:
    errors = harmed(scene, relay, way, later(first_only(put("I", 20, 0))))

    assert told(errors, SILENT), errors


@pytest.mark.parametrize(
    ("way", "lie"), [(way, lie) for way in WAYS for lie, (asked_by, _) in BODY_LIES.items() if way.startswith(asked_by)]
)
def test_an_answer_that_lies_about_its_parts_is_told(scene: Scene, relay: HostileSmb, way: str, lie: str) -> None:
    _, script = BODY_LIES[lie]

    errors = harmed(scene, relay, way, script)

    assert told(errors, LIED), errors


@pytest.mark.parametrize("lie", HARMLESS)
def test_what_a_server_may_do_does_no_harm(scene: Scene, relay: HostileSmb, way: str, lie: str) -> None:
    assert harmed(scene, relay, way, HARMLESS[lie]) == []


def test_an_encrypted_session_takes_nothing_in_clear(encrypted_scene: Scene, relay: HostileSmb, way: str) -> None:
    errors = harmed(encrypted_scene, relay, way, later(tell_in_clear))

    assert told(errors, BROKEN), errors


@pytest.mark.parametrize("script", [flip_last_bit, flip_signature])
def test_an_encrypted_answer_is_not_taken_changed(
    encrypted_scene: Scene, relay: HostileSmb, way: str, script: Script
) -> None:
    errors = harmed(encrypted_scene, relay, way, later(script))

    assert told(errors, BROKEN), errors


@pytest.mark.parametrize("lie", HARMLESS)
def test_an_encrypted_server_may_do_it_as_well(encrypted_scene: Scene, relay: HostileSmb, way: str, lie: str) -> None:
    assert harmed(encrypted_scene, relay, way, HARMLESS[lie]) == []


@pytest.fixture
def with_few_credits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The scene, on a connection that was granted hardly more than nothing."""
    monkeypatch.setattr(connection, "WANTED_CREDITS", 3)
    scene.storage.close()
    return scene


@pytest.mark.parametrize("way", ["walk", "read small", "read large", "write small", "write large"])
def test_a_server_that_grants_no_more_credits_is_told(with_few_credits: Scene, relay: HostileSmb, way: str) -> None:
    sizes, work = WAYS[way]
    with_few_credits.plant(sizes)
    assert work(with_few_credits) == []
    relay.harm(each(put("H", 14, 0)))

    errors = next(filter(None, (work(with_few_credits) for _ in range(50))), [])

    assert told(errors, BROKEN), errors
    assert work(with_few_credits) == []


@pytest.mark.parametrize("lie", HARMLESS)
def test_few_credits_are_enough(with_few_credits: Scene, relay: HostileSmb, way: str, lie: str) -> None:
    assert harmed(with_few_credits, relay, way, HARMLESS[lie]) == []


@pytest.mark.parametrize("lie", ["a frame of 16 MB announced", "a frame of 16 MB sent"])
def test_memory_does_not_grow_with_what_is_announced(scene: Scene, relay: HostileSmb, lie: str) -> None:
    script, _ = UNSIGNED_LIES[lie]
    scene.plant(SMALL)
    assert scene.read() == []
    relay.harm(later(script))

    tracemalloc.start()
    try:
        assert scene.read() != []
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 12 << 20
