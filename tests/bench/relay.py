"""What the relay with the delay is like itself: round trip and throughput, measured on the way to a server of ours."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harvest.demo.local_server import HOST
from tests.bench.processes import BenchError
from tests.servers.proxy import DelayProxy

_PINGS = 100
_STREAM_BYTES = 1 << 30
_PIECE = bytes(1 << 20)


def described(folder: Path, *, delay_seconds: float) -> str:
    """One line on a relay of that delay, beside the way without it."""
    with _server() as port:
        direct = _throughput(port)
        with DelayProxy(folder, port, delay_seconds=delay_seconds) as proxy:
            round_trip, through = _round_trip(proxy.port), _throughput(proxy.port)
    return (
        f"the relay: round trip {round_trip * 1000:.2f} ms, {through / 1e9:.2f} GB/s on one connection "
        f"({direct / 1e9:.2f} GB/s without it)"
    )


@contextmanager
def _server() -> Iterator[int]:
    """Answers each byte with itself, and an S with a stream of known length."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    while told := client.recv(1):
                        for _ in range(_STREAM_BYTES // len(_PIECE)) if told == b"S" else ():
                            client.sendall(_PIECE)
                        client.sendall(told)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _round_trip(port: int) -> float:
    """The median, in seconds."""
    taken = []
    with socket.create_connection((HOST, port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_PINGS):
            begun = time.perf_counter()
            client.sendall(b"p")
            client.recv(1)
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _throughput(port: int) -> float:
    """Bytes a second."""
    buffer = memoryview(bytearray(len(_PIECE)))
    with socket.create_connection((HOST, port), timeout=30) as client:
        begun, got = time.perf_counter(), 0
        client.sendall(b"S")
        while got < _STREAM_BYTES:
            count = client.recv_into(buffer)
            if not count:
                raise BenchError("The relay lost its connection while it was measured.")
            got += count
        return got / (time.perf_counter() - begun)
