"""A connection against a peer of our own making: how long it waits, what it does meanwhile, how it is taken over."""

from __future__ import annotations

import inspect
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from smbprotocol.connection import Connection as LibraryConnection
from smbprotocol.session import Session as LibrarySession
from smbprotocol.transport import Tcp
from smbprotocol.tree import TreeConnect

from harvest.storage.base import Fault, StorageError
from harvest.storage.smb import SmbStorage, login, messages
from harvest.storage.smb import connection as connection_module
from harvest.storage.smb.connection import PipelinedConnection
from harvest.storage.smb.exchange import Exchange, NoCreditsError
from harvest.storage.smb.login import SignedConnection, Transport
from harvest.storage.smb.messages import (
    FLAG_ASYNC,
    FLAG_FROM_SERVER,
    FLAG_SIGNED,
    HEADER,
    HEADER_BYTES,
    NO_MESSAGE_ID,
    PROTOCOL_ID,
    Command,
    MalformedError,
    Request,
    Status,
    StatusError,
)
from harvest.storage.smb.protection import SIGNINGS, ForgedError, Signing

KEY = bytes(range(16))
WRITTEN = struct.pack("<HxxI8x", 17, 1)


@dataclass
class Asked:
    """A request as the peer has taken it apart."""

    command: int
    message_id: int
    credits: int
    body: bytes


@dataclass
class Peer:
    """The server's side of a connection that is logged in; it does what a test tells it, and signs rightly."""

    sock: socket.socket
    signing: Signing = field(default_factory=lambda: SIGNINGS[2](KEY))

    def take(self) -> list[Asked]:
        """The requests of the next frame."""
        length = int.from_bytes(self._exactly(4), "big")
        frame, asked = self._exactly(length), []
        while frame:
            _, _, _, _, command, credits, _, step, message_id, *_ = HEADER.unpack_from(frame)
            asked.append(Asked(command, message_id, credits, frame[HEADER_BYTES : step or None]))
            frame = frame[step:] if step else b""
        return asked

    def answer(self, asked: Asked, body: bytes = b"", status: int = 0, flags: int = 0, credits: int = 1) -> bytes:
        """The frame of an answer."""
        message = bytearray(
            HEADER.pack(
                *(PROTOCOL_ID, HEADER_BYTES, 1, status, asked.command, credits),
                *(FLAG_FROM_SERVER | FLAG_SIGNED | flags, 0, asked.message_id, 0, 1, 1, bytes(16)),
            )
            + body
        )
        message[48:64] = self.signing.signature(memoryview(message), asked.message_id, from_server=True)
        return len(message).to_bytes(4, "big") + message

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            piece = self.sock.recv(count - len(received))
            if not piece:
                raise ConnectionResetError
            received += piece
        return received


@pytest.fixture
def pair() -> Iterator[tuple[PipelinedConnection, Peer]]:
    ours, theirs = socket.socketpair()
    connection = PipelinedConnection(
        ours, session_id=1, tree_id=1, next_message_id=5, credits=8, signing=SIGNINGS[2](KEY), encryption=None
    )
    with theirs:
        yield connection, Peer(theirs)
        connection.abandon()


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Do something in a thread of its own, which has to end before the test does."""
    threads: list[threading.Thread] = []

    def start(action: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=action))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def written(exchange: Exchange) -> int:
    return messages.written(exchange.answer(0), 1)


WRITE = messages.write(0, b"x", bytes(16))


# ------------------------------------------------------------------------------------------------------- answers


def test_answers_find_their_exchange_in_whatever_order_they_come(pair: tuple[PipelinedConnection, Peer]) -> None:
    connection, peer = pair
    exchanges = [connection.submit(messages.read(0, 10, bytes(16))) for _ in range(4)]
    connection.flush()
    asked = [peer.take()[0] for _ in exchanges]

    for number in (2, 0, 3, 1):
        peer.send(peer.answer(asked[number], struct.pack("<HBxI8x", 17, 80, 1) + b"%d" % number))

    for number, exchange in enumerate(exchanges):
        assert bytes(messages.content(connection.wait(exchange).answer(0), 10)) == b"%d" % number


def test_what_is_not_final_is_waited_for_and_what_was_not_asked_for_is_passed_over(
    pair: tuple[PipelinedConnection, Peer],
) -> None:
    connection, peer = pair
    exchange = connection.submit(WRITE)
    connection.flush()
    (asked,) = peer.take()
    unasked = Asked(18, NO_MESSAGE_ID, 0, b"")

    peer.send(
        peer.answer(unasked, bytes(36)),  # an oplock break
        peer.answer(asked, bytes(9), status=Status.PENDING, flags=FLAG_ASYNC),
        peer.answer(unasked, bytes(44)),  # a lease break
        peer.answer(asked, WRITTEN, flags=FLAG_ASYNC, credits=0),
    )

    assert written(connection.wait(exchange)) == 1


def test_an_error_is_told_to_its_own_exchange_alone(pair: tuple[PipelinedConnection, Peer]) -> None:
    connection, peer = pair
    refused, accepted = connection.submit(WRITE), connection.submit(WRITE)
    connection.flush()
    peer.send(peer.answer(peer.take()[0], bytes(9), status=0xC0000022), peer.answer(peer.take()[0], WRITTEN))

    with pytest.raises(StatusError) as caught:
        connection.wait(refused).answer(0)
    assert caught.value.status == 0xC0000022
    assert written(connection.wait(accepted)) == 1


def test_a_handle_that_nobody_wants_any_more_is_closed(pair: tuple[PipelinedConnection, Peer]) -> None:
    connection, peer = pair
    create = messages.create("fid", access=messages.READ_DATA)
    exchange = connection.submit(create, messages.close())
    connection.flush()
    connection.forget(exchange)
    opened, closed = peer.take()

    handle = b"a handle of ours"
    peer.send(
        peer.answer(opened, struct.pack("<HBBI48xI4x16s8x", 89, 0, 0, 1, 0, handle)),
        peer.answer(closed, bytes(9), status=0xC000009A),
    )
    other = connection.submit(WRITE)
    connection.flush()
    peer.send(peer.answer(peer.take()[0], WRITTEN))
    connection.wait(other)
    connection.flush()

    (again,) = peer.take()
    assert again.command == Command.CLOSE
    assert handle in again.body


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda frame: frame[:4] + frame[4:20] + b"\0" + frame[21:], ForgedError),  # flags: not signed, not an answer
        (lambda frame: frame[:-1] + b"!", ForgedError),
        (lambda frame: frame[:52] + bytes(16) + frame[68:], ForgedError),
        (lambda frame: b"\xff\xff\xff\xff", MalformedError),
        (lambda frame: b"\0\xff\xff\xff" + frame[4:], MalformedError),
        (lambda frame: b"\0\0\0\3abc", MalformedError),
        (lambda frame: frame[:4] + b"\xfdSMB" + frame[8:], ForgedError),
        (lambda frame: frame[:28] + struct.pack("<Q", 77) + frame[36:], MalformedError),  # another message id
        (lambda frame: frame[:24] + struct.pack("<I", 0xFFFFFFF8) + frame[28:], MalformedError),
        (lambda frame: frame[:16] + struct.pack("<H", Command.READ) + frame[18:], MalformedError),
    ],
)
def test_an_answer_that_is_none_ends_the_connection(
    pair: tuple[PipelinedConnection, Peer], damage: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    connection, peer = pair
    exchange, other = connection.submit(WRITE), connection.submit(WRITE)
    connection.flush()

    peer.send(damage(peer.answer(peer.take()[0], WRITTEN)))

    with pytest.raises(error):
        connection.wait(exchange)
    assert connection.has_ended()
    with pytest.raises(ConnectionResetError):
        connection.wait(other)
    with pytest.raises(ConnectionResetError):
        connection.submit(WRITE)


def test_a_task_that_is_stopped_in_the_middle_of_an_answer_leaves_no_connection_out_of_step(
    pair: tuple[PipelinedConnection, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    class TimeLimitError(Exception):
        """As Celery raises it, anywhere."""

    connection, peer = pair
    exchange = connection.submit(WRITE)
    connection.flush()
    peer.send(peer.answer(peer.take()[0], WRITTEN))

    def stopped(length: int) -> bytearray:
        raise TimeLimitError

    monkeypatch.setattr(connection, "_buffer", stopped)
    with pytest.raises(TimeLimitError):
        connection.wait(exchange)

    assert connection.has_ended()


# -------------------------------------------------------------------------------------------------------- credits


def test_no_more_is_sent_than_the_server_lets_us(pair: tuple[PipelinedConnection, Peer]) -> None:
    connection, peer = pair
    for _ in range(7):
        connection.submit(WRITE)
    connection.flush()
    asked = [peer.take()[0] for _ in range(7)]
    assert [one.message_id for one in asked] == list(range(5, 12))
    assert all(one.credits > 1 for one in asked)  # and asks for more

    peer.send(peer.answer(asked[0], WRITTEN, credits=3))
    ninth = connection.submit(WRITE)  # waits for that answer: the last credit is kept for a sign of life
    connection.flush()

    assert peer.take()[0].message_id == 12
    peer.send(*(peer.answer(one, WRITTEN, credits=0) for one in asked[1:]))
    assert ninth.missing


def test_a_compound_that_costs_too_much_is_sent_in_parts(
    meanwhile: Callable[[Callable[[], None]], None],
) -> None:
    ours, theirs = socket.socketpair()
    connection = PipelinedConnection(
        ours, session_id=1, tree_id=1, next_message_id=5, credits=1, signing=SIGNINGS[2](KEY), encryption=None
    )
    peer, seen = Peer(theirs), []
    handle = b"a handle of ours"

    def serve() -> None:
        for _ in range(3):
            (asked,) = peer.take()
            seen.append(asked)
            body = struct.pack("<HBBI48xI4x16s8x", 89, 0, 0, 1, 0, handle) if asked.command == 5 else bytes(60)
            peer.send(peer.answer(asked, body))

    meanwhile(serve)
    connection.ask(messages.create("fid", access=1), messages.flush(), messages.close())

    assert [one.command for one in seen] == [Command.CREATE, Command.FLUSH, Command.CLOSE]
    assert all(handle in one.body for one in seen[1:])
    with pytest.raises(NoCreditsError):
        connection.submit(messages.read(0, 1 << 20, handle))
    connection.abandon()
    theirs.close()


# --------------------------------------------------------------------------------------------------------- waiting


def test_a_slow_server_that_shows_signs_of_life_is_waited_for(
    pair: tuple[PipelinedConnection, Peer],
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Callable[[], None]], None],
) -> None:
    connection, peer = pair
    connection_module._set_time_limit(connection._socket, 0.1)
    echoes = []

    def serve() -> None:
        (asked,) = peer.take()
        for _ in range(3):
            (echo,) = peer.take()
            echoes.append(echo.command)
            peer.send(peer.answer(echo, struct.pack("<H2x", 4)))
        peer.send(peer.answer(asked, WRITTEN))

    meanwhile(serve)

    assert written(connection.wait(connection.submit(WRITE))) == 1
    assert echoes == [Command.ECHO] * 3


def test_a_server_that_only_shows_signs_of_life_is_not_waited_for_for_ever(
    pair: tuple[PipelinedConnection, Peer],
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Callable[[], None]], None],
) -> None:
    connection, peer = pair
    connection_module._set_time_limit(connection._socket, 0.1)
    monkeypatch.setattr(connection_module, "ANSWER_SECONDS", 0.5)

    def serve() -> None:
        peer.take()
        try:
            while True:
                peer.send(peer.answer(peer.take()[0], struct.pack("<H2x", 4)))
        except OSError:
            return  # it was given up

    meanwhile(serve)
    with pytest.raises(TimeoutError, match="no answer came"):
        connection.wait(connection.submit(WRITE))
    connection.abandon()


def test_a_silent_server_is_given_up(pair: tuple[PipelinedConnection, Peer]) -> None:
    connection, _ = pair
    connection_module._set_time_limit(connection._socket, 0.1)

    with pytest.raises(TimeoutError, match="did not answer"):
        connection.wait(connection.submit(WRITE))


def test_a_server_that_drips_is_given_up(
    pair: tuple[PipelinedConnection, Peer],
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Callable[[], None]], None],
) -> None:
    connection, peer = pair
    connection_module._set_time_limit(connection._socket, 0.1)
    monkeypatch.setattr(connection_module, "FRAME_SECONDS", 0.5)
    exchange = connection.submit(WRITE)
    connection.flush()
    frame = peer.answer(peer.take()[0], WRITTEN)

    def drip() -> None:
        try:
            for octet in frame[:-1]:
                peer.send(bytes([octet]))
                time.sleep(0.05)
        except OSError:
            return  # it was given up

    meanwhile(drip)
    with pytest.raises(TimeoutError, match="did not come to its end"):
        connection.wait(exchange)
    connection.abandon()


def test_a_server_that_takes_nothing_is_given_up(
    pair: tuple[PipelinedConnection, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, _ = pair
    monkeypatch.setattr(connection_module, "SILENCE_SECONDS", 0.1)
    connection.submit(messages.write(0, bytes(400_000), bytes(16)))

    with pytest.raises(TimeoutError, match="took nothing"):
        connection.flush()


def test_two_that_are_both_full_do_not_wait_for_each_other(
    pair: tuple[PipelinedConnection, Peer], meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    """A server that does not take requests while its answers are not taken."""
    connection, peer = pair
    length = 60_000
    reads = [connection.submit(messages.read(0, length, bytes(16))) for _ in range(6)]
    connection.flush()

    def serve() -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for asked in [peer.take()[0] for _ in reads]:
            peer.send(peer.answer(asked, struct.pack("<HBxI8x", 17, 80, length) + bytes(length), credits=8))
        peer.send(peer.answer(peer.take()[0], struct.pack("<HxxI8x", 17, 400_000)))

    meanwhile(serve)
    exchange = connection.submit(messages.write(0, bytes(400_000), bytes(16)))

    assert messages.written(connection.wait(exchange).answer(0), 400_000) == 400_000
    assert all(len(messages.content(connection.wait(one).answer(0), length)) == length for one in reads)


# --------------------------------------------------------------------------------------------------------- log-in


@pytest.mark.parametrize("frame", [b"\xff\xff\xff\xff", b"\0\1\0\0" + bytes(64)])
def test_a_server_that_does_not_come_to_the_point_is_given_up_while_we_log_in(
    frame: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    meanwhile: Callable[[Callable[[], None]], None],
) -> None:
    monkeypatch.setattr(login, "LOGIN_SECONDS", 0.5)
    monkeypatch.setattr(login, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            accepted, _ = listening.accept()
            with accepted:
                try:
                    accepted.recv(4096)
                    accepted.sendall(frame)
                    while accepted.recv(4096):
                        pass
                except OSError:
                    return  # it was given up

        meanwhile(serve)
        config = {"host": "127.0.0.1", "port": listening.getsockname()[1], "share": "s"}
        storage = SmbStorage.from_config("/", {**config, "username": "u", "password": "p"})
        with pytest.raises(StorageError) as caught:
            storage.connect()

    assert caught.value.fault in (Fault.UNREACHABLE, Fault.TIMEOUT)


def test_what_we_use_of_smbprotocols_private_parts_is_there() -> None:
    """All is used in login.py, and by _Packed of plain.py. Where this fails, smbprotocol has changed: read both."""
    negotiate = inspect.getsource(LibraryConnection.connect)
    assert "self.transport = Tcp(self.server_name, self.port, timeout)" in negotiate
    assert "self._t_worker = threading.Thread" in negotiate
    receiving = inspect.getsource(LibraryConnection._process_message_thread)
    assert "b_msg = self.transport.recv(self._receive_timeout)" in receiving
    assert "if not b_msg:\n                    return" in receiving
    assert "self._t_exc = exc" in receiving
    sending = inspect.getsource(LibraryConnection._send)
    assert "self._calculate_credit_charge(message)" in sending
    assert 'header["data"] = message.pack()' in sending
    assert list(inspect.signature(Tcp._recv).parameters) == ["self", "length", "timeout"]
    assert list(inspect.signature(Tcp.recv).parameters) == ["self", "timeout"]
    assert "_send_smb2_negotiate(dialect, timeout" in negotiate

    transport = Transport("nas", 445, 1)
    assert transport._sock is None
    connection = SignedConnection(None, "nas")
    assert {"low", "high"} <= set(connection.sequence_window)
    assert connection.signing_algorithm_id is None
    assert connection.cipher_id is None
    session = LibrarySession(connection, "u", "p")
    assert {"signing_key", "encryption_key", "decryption_key", "encrypt_data", "signing_required"} <= set(vars(session))
    assert {"is_dfs_share", "encrypt_data", "tree_connect_id"} <= set(vars(TreeConnect(session, "\\\\nas\\share")))


def test_a_request_that_smbprotocol_sends_for_us_is_priced_by_us() -> None:
    connection = SignedConnection(None, "nas")
    connection.supports_multi_credit = True
    assert connection._calculate_credit_charge(Request(Command.READ, b"", 8, 0)) == 8
