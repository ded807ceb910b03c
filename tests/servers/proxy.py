"""A relay for one TCP server that makes the way to it long, slow or bad.

    with DelayProxy(folder, samba.port, delay_seconds=0.001) as proxy:
        ...  # proxy.port leads to samba.port, and takes a millisecond longer in each direction
        proxy.set(fault=Fault("reset", to="client", after_bytes=100_000))
        ...  # the next 100,000 bytes come through, then the connection is reset
        proxy.set(fault=None)

It runs in a process of its own, so that it takes no time from the one that measures, one thread for each direction of
each connection. A delay does not limit how much is under way.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harvest.demo.local_server import HOST, LocalServer

_BUFFER_BYTES = 256 * 1024
_BUFFERS = 256
"""64 MiB may be under way in one direction; then the sender has to wait."""
_LOOK_SECONDS = 0.05
"""How soon a change of the weather is noticed where nothing comes in."""

_PR_SET_TIMERSLACK = 29

Kind = Literal["reset", "close", "black_hole", "corrupt"]
End = Literal["client", "server"]


@dataclass(frozen=True)
class Fault:
    """What happens to a connection, once so many bytes have gone `to` one end of it since the fault was set (or since
    the connection was opened, if that is later).

    reset: both ends get a reset. close: both ends see an orderly end. black_hole: nothing comes through any more in
    this direction, and nobody is told. corrupt: the next byte is changed, once, and everything goes on. `connections`
    is on how many connections it happens at most.
    """

    kind: Kind
    to: End = "client"
    after_bytes: int = 0
    connections: int | None = None


@dataclass(frozen=True)
class Weather:
    """How the way is: what it adds in each direction, how much gets through in a second, what goes wrong."""

    delay_seconds: float = 0.0
    bytes_per_second: int | None = None
    fault: Fault | None = None

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Weather:
        fault = told.pop("fault")
        return cls(**told, fault=Fault(**fault) if fault else None)


class DelayProxy(LocalServer):
    """The relay to 127.0.0.1:`target_port`, as a server that is started and stopped."""

    label = "The relay"
    programs = ()
    remedy = ""
    port_count = 2

    def __init__(
        self, directory: Path, target_port: int, *, delay_seconds: float = 0.0, bytes_per_second: int | None = None
    ) -> None:
        super().__init__(directory)
        self._target_port = target_port
        self._weather = Weather(delay_seconds, bytes_per_second)

    @property
    def weather(self) -> Weather:
        return self._weather

    def set(self, **changes: Any) -> None:
        """Change the weather, for the connections that are open as well: delay_seconds, bytes_per_second, fault. A
        fault that is set anew begins to count anew. Returns when the relay has taken it in."""
        self._weather = replace(self._weather, **changes)
        if self.is_running:
            self._ask(asdict(self._weather))

    def counts(self) -> dict[str, int]:
        """`connections` so far, `open` now, bytes passed on `to_client` and `to_server`, and `faults` that happened."""
        return self._ask({})

    def _ask(self, question: dict[str, Any]) -> dict[str, int]:
        with socket.create_connection((self.host, self._ports[1]), timeout=10) as control:
            control.sendall(json.dumps(question).encode() + b"\n")
            with control.makefile("r") as answer:
                counts: dict[str, int] = json.loads(answer.readline())
                return counts

    def _prepare(self) -> None:
        pass

    def _command(self) -> list[str]:
        ports = [str(port) for port in (self.port, self._target_port, self._ports[1])]
        return [sys.executable, "-m", "tests.servers.proxy", *ports, json.dumps(asdict(self._weather))]

    def _environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def _answers(self) -> bool:
        """Asked at the control port: a connection to the other one would be passed on."""
        try:
            self.counts()
        except OSError:
            return False
        return True


# ------------------------------------------------------------------------------------------------ the process itself


class Relay:
    """All connections of the process, and the weather they meet."""

    def __init__(self, target_port: int, weather: Weather) -> None:
        self.target_port = target_port
        self._lock = threading.Lock()
        self._counts = {"connections": 0, "open": 0, "to_client": 0, "to_server": 0, "faults": 0}
        self.set(weather)

    def set(self, weather: Weather) -> None:
        """From now on."""
        with self._lock:
            self.weather = weather
            self._left = weather.fault.connections if weather.fault else 0

    def take_fault(self, fault: Fault) -> bool:
        """Whether the fault, if it is still set, may happen on one connection more."""
        with self._lock:
            if self.weather.fault is not fault or self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            self._counts["faults"] += 1
            return True

    def count(self, what: str, number: int) -> None:
        with self._lock:
            self._counts[what] += number

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def serve(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection((HOST, self.target_port), timeout=10)
            except OSError:
                _reset_when_closed(client)
                return
            with server, self._counted():
                ends = Ends(client, server)
                there = Direction(self, "server", client, server, ends)
                back = Direction(self, "client", server, client, ends)
                thread = threading.Thread(target=there.run, daemon=True)
                thread.start()
                back.run()
                thread.join()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.count("connections", 1)
        self.count("open", 1)
        try:
            yield
        finally:
            self.count("open", -1)


class Ends:
    """The two sockets of one connection, and whether they are still to be served."""

    def __init__(self, *sockets: socket.socket) -> None:
        self._sockets = sockets
        self.broken = False
        """Both directions end; then the sockets are closed."""
        self.deaf = False
        """What still comes is thrown away."""
        for each in sockets:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def abandon(self) -> None:
        """Close both at once, when both directions have noticed."""
        self.broken = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RD)  # tells nobody, and wakes who waits for something to read

    def reset(self) -> None:
        for each in self._sockets:
            _reset_when_closed(each)
        self.abandon()

    def close(self) -> None:
        """Tell both that nothing more comes. Closing while there is unread data would be a reset."""
        self.deaf = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_WR)


class Direction:
    """The bytes of one connection on their way to one end of it."""

    def __init__(self, relay: Relay, to: End, source: socket.socket, target: socket.socket, ends: Ends) -> None:
        self._relay, self._to, self._source, self._target, self._ends = relay, to, source, target, ends
        self._under_way: deque[tuple[float, bytearray, int]] = deque()
        self._spare: list[bytearray] = []
        self._buffers = 0
        self._fault: Fault | None = None
        self._passed = 0
        """Since the fault was set."""
        self._spent = False
        """The fault has had its turn here."""
        self._lost = False
        """In a black hole: everything that comes is thrown away."""

    def run(self) -> None:
        """Pass on until the source ends or the connection breaks."""
        try:
            self._pass_on()
        except OSError:  # one of the two is gone
            self._ends.abandon()

    def _pass_on(self) -> None:
        ended = False
        while not self._ends.broken and not (ended and not self._under_way):
            wait = max(self._under_way[0][0] - time.monotonic(), 0) if self._under_way else _LOOK_SECONDS
            if ended or (self._buffers == _BUFFERS and not self._spare):
                time.sleep(wait)
            elif select.select([self._source], [], [], min(wait, _LOOK_SECONDS))[0]:
                ended = not self._take_in()
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                self._let_out(*self._under_way.popleft()[1:])
        if not self._lost and not self._ends.broken and not self._ends.deaf:
            self._target.shutdown(socket.SHUT_WR)

    def _take_in(self) -> bool:
        """Receive once; False where the source has ended."""
        if self._spare:
            buffer = self._spare.pop()
        else:
            buffer = bytearray(_BUFFER_BYTES)
            self._buffers += 1
        count = self._source.recv_into(buffer)
        if count:
            self._under_way.append((time.monotonic() + self._relay.weather.delay_seconds, buffer, count))
        return count > 0

    def _let_out(self, buffer: bytearray, count: int) -> None:
        weather = self._relay.weather
        piece = memoryview(buffer)[:count]
        reach = self._reach_of(weather.fault)
        if weather.fault is not None and reach is not None and reach < count:
            self._send(piece[:reach], weather)
            piece = piece[reach:]
            self._spent = True
            if self._relay.take_fault(weather.fault):
                self._happen(weather.fault, piece)
        self._send(piece, weather)
        self._spare.append(buffer)

    def _reach_of(self, fault: Fault | None) -> int | None:
        """How many bytes still get through before `fault` happens; None where it does not in this direction."""
        if fault is not self._fault:
            self._fault, self._passed, self._spent = fault, 0, False
        if fault is None or fault.to != self._to or self._spent:
            return None
        return max(fault.after_bytes - self._passed, 0)

    def _happen(self, fault: Fault, piece: memoryview) -> None:
        match fault.kind:
            case "corrupt":
                piece[0] ^= 0x55
            case "black_hole":
                self._lost = True
            case "reset":
                self._ends.reset()
            case "close":
                self._ends.close()

    def _send(self, piece: memoryview, weather: Weather) -> None:
        begun, sent = time.monotonic(), 0
        most = len(piece) if weather.bytes_per_second is None else max(weather.bytes_per_second // 100, 1)
        while sent < len(piece) and not (self._lost or self._ends.deaf or self._ends.broken):
            try:
                count = self._target.send(piece[sent : sent + most])
            except BlockingIOError:
                select.select([], [self._target], [], _LOOK_SECONDS)
                continue
            sent += count
            self._passed += count
            self._relay.count(f"to_{self._to}", count)
            if weather.bytes_per_second is not None:
                time.sleep(max(begun + sent / weather.bytes_per_second - time.monotonic(), 0))


def _reset_when_closed(end: socket.socket) -> None:
    """Its closing sends RST: a linger time of zero, see socket(7)."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _answer_questions(relay: Relay, listener: socket.socket) -> None:
    """Each a line of JSON: a weather, or {} to be told the counts only. The answer is the counts."""
    while True:
        control, _ = listener.accept()
        with control, control.makefile("rw") as stream, suppress(OSError, ValueError):
            told = json.loads(stream.readline())
            if told:
                relay.set(Weather.from_json(told))
            stream.write(json.dumps(relay.counts()) + "\n")


def _wake_up_in_time() -> None:
    """The kernel may be 50 µs late otherwise, to wake up several sleepers together (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Relays one TCP port to another on the loopback address.")
    parser.add_argument("port", type=int)
    parser.add_argument("target_port", type=int)
    parser.add_argument("control_port", type=int)
    parser.add_argument("weather", type=json.loads)
    given = parser.parse_args()
    _wake_up_in_time()
    relay = Relay(given.target_port, Weather.from_json(given.weather))
    listeners = [socket.create_server((HOST, port)) for port in (given.port, given.control_port)]
    threading.Thread(target=_answer_questions, args=(relay, listeners[1]), daemon=True).start()
    relay.serve(listeners[0])


if __name__ == "__main__":
    main()
