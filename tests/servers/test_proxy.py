"""The relay with its weather: what comes through, when, and what does not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from harvest.demo.local_server import HOST, await_truth
from tests.servers.proxy import DelayProxy, Fault

MIB = 1 << 20


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server((HOST, 0)) as listener, ExitStack() as open_:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                open_.enter_context(connection)
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with suppress(OSError):
                while piece := connection.recv(MIB):
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def proxy(tmp_path: Path, echo_port: int) -> Iterator[DelayProxy]:
    with DelayProxy(tmp_path, echo_port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: DelayProxy) -> Iterator[socket.socket]:
    with socket.create_connection((proxy.host, proxy.port), timeout=20) as client:
        yield client


def received(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (piece := client.recv(count - len(got))):
        got += piece
    return got


def exchange(client: socket.socket, content: bytes) -> bytes:
    """What comes back of `content`."""
    sender = threading.Thread(target=client.sendall, args=(content,))
    sender.start()
    got = received(client, len(content))
    sender.join()
    return got


def test_bytes_come_through_unchanged_and_are_counted(proxy: DelayProxy, client: socket.socket) -> None:
    content = bytes(range(256)) * (MIB // 16)
    assert exchange(client, content) == content
    counts = proxy.counts()
    assert (counts["connections"], counts["open"]) == (1, 1)
    assert counts["to_client"] == counts["to_server"] == len(content)


def test_the_end_of_one_side_reaches_the_other_after_all_that_was_under_way(
    proxy: DelayProxy, client: socket.socket
) -> None:
    proxy.set(delay_seconds=0.05)
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert received(client, 100) == b"last words"
    assert await_truth(lambda: proxy.counts()["open"] == 0, within_seconds=10)


def test_every_round_trip_takes_the_delay_of_both_directions_at_least(proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(delay_seconds=0.02)
    begun = time.monotonic()
    for _ in range(5):
        assert exchange(client, b"ping") == b"ping"
    assert time.monotonic() - begun >= 5 * 2 * 0.02


def test_a_delay_keeps_nothing_from_being_under_way_together(proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(delay_seconds=0.5)
    begun = time.monotonic()
    for number in range(40):  # one after the other they would take 40 seconds
        client.sendall(bytes([number]))
    assert received(client, 40) == bytes(range(40))
    assert time.monotonic() - begun < 20


def test_a_slow_way_lets_no_more_through_than_told(proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(bytes_per_second=1_000_000)
    begun = time.monotonic()
    exchange(client, bytes(300_000))
    assert time.monotonic() - begun >= 0.3


def test_a_reset_comes_after_the_bytes_that_were_told(proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(fault=Fault("reset", after_bytes=1000))
    client.sendall(bytes(5000))
    with pytest.raises(ConnectionResetError):
        received(client, 5000)
    assert proxy.counts()["to_client"] <= 1000
    assert proxy.counts()["faults"] == 1
    assert await_truth(lambda: proxy.counts()["open"] == 0, within_seconds=10)


def test_a_closed_connection_ends_in_order(proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(fault=Fault("close", after_bytes=1000))
    client.sendall(bytes(5000))
    assert received(client, 5000) == bytes(1000)
    client.close()
    assert await_truth(lambda: proxy.counts()["open"] == 0, within_seconds=10)


def test_a_black_hole_swallows_one_direction_and_tells_nobody(proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(fault=Fault("black_hole", to="client", after_bytes=3))
    client.sendall(b"swallowed")
    assert received(client, 3) == b"swa"
    assert await_truth(lambda: proxy.counts()["to_server"] == 9, within_seconds=10)
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert proxy.counts()["open"] == 1
    client.close()
    assert await_truth(lambda: proxy.counts()["open"] == 0, within_seconds=10)


@pytest.mark.parametrize("to", ["client", "server"])
def test_one_byte_is_changed_once_and_everything_goes_on(to: str, proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(fault=Fault("corrupt", to=to, after_bytes=4))  # type: ignore[arg-type]
    assert exchange(client, bytes(10)) == b"\0\0\0\0\x55\0\0\0\0\0"
    assert exchange(client, bytes(10)) == bytes(10)


def test_a_fault_happens_on_no_more_connections_than_told(proxy: DelayProxy) -> None:
    proxy.set(fault=Fault("corrupt", connections=1))
    for expected in (b"\x55", b"\0"):
        with socket.create_connection((proxy.host, proxy.port), timeout=20) as client:
            assert exchange(client, b"\0") == expected
    assert proxy.counts()["faults"] == 1


def test_a_fault_that_is_taken_away_happens_no_more(proxy: DelayProxy, client: socket.socket) -> None:
    proxy.set(fault=Fault("reset", after_bytes=10))
    proxy.set(fault=None)
    assert exchange(client, bytes(20)) == bytes(20)


def test_a_server_that_is_not_there_refuses_through_the_relay(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as gone:
        port = gone.getsockname()[1]
    with (
        DelayProxy(tmp_path, port) as proxy,
        socket.create_connection((HOST, proxy.port), timeout=20) as client,
        pytest.raises(ConnectionResetError),
    ):
        client.recv(1)
