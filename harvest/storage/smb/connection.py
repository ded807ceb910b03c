"""A connection to a share on which many requests are under way at once.

Whoever waits for an answer reads the socket, and hands every answer that comes to the exchange it belongs to; there is
no thread. So calls may be interleaved as one likes, a walk that pauses while files are read for example.
"""

from __future__ import annotations

import select
import socket
import struct
from time import monotonic

from harvest.storage.smb import messages
from harvest.storage.smb.exchange import Connection, Exchange, NoCreditsError
from harvest.storage.smb.messages import (
    FLAG_FROM_SERVER,
    FLAG_RELATED,
    FLAG_SIGNED,
    HEADER,
    HEADER_BYTES,
    NO_MESSAGE_ID,
    PIECE_BYTES,
    PROTOCOL_ID,
    MalformedError,
    Request,
    Status,
)
from harvest.storage.smb.protection import Encryption, ForgedError, Signing

SILENCE_SECONDS = 25
"""After how long a silent server is asked for a sign of life; as much longer, and the connection is given up."""
FRAME_SECONDS = 60
"""How long a message may take from its first byte to its last."""
ANSWER_SECONDS = 300
"""How long an answer may take while the server shows other signs of life."""
GOODBYE_SECONDS = 5
WANTED_CREDITS = 512
"""For how many pieces of 64 KiB the server is asked to let us have requests under way ([MS-SMB2] 3.2.4.1.2)."""

_UNASKED_BYTES = 0x10000
_POOLED_BYTES = 0x20000
_POOLED_BUFFERS = 32
_JOINED_BYTES = 0x20000
_ANSWER = struct.Struct("<4sHHIHHIIQ")  # the header of an answer up to its message id
_NO_SIGNATURE = bytes(16)


class PipelinedConnection(Connection):
    """See Connection. Takes over the socket of a session that is logged in, and a share that is open."""

    pipelined = True

    def __init__(
        self,
        sock: socket.socket,
        *,
        session_id: int,
        tree_id: int,
        next_message_id: int,
        credits: int,
        signing: Signing | None,
        encryption: Encryption | None,
    ) -> None:
        if (signing is None) == (encryption is None):
            raise ValueError("A connection is either signed or encrypted.")
        self._socket = sock
        _set_time_limit(sock, SILENCE_SECONDS)
        self._session_id, self._tree_id = session_id, tree_id
        self._next_id, self._credits = next_message_id, credits
        self._signing, self._encryption = signing, encryption
        self._pending: dict[int, tuple[Exchange, int, Request]] = {}
        self._charged = 0  # credits of the requests under way
        self._room_bytes = 0  # the longest that all their answers together may be
        self._queue: list[bytearray] = []
        self._to_close: list[bytes] = []
        self._prefix = memoryview(bytearray(4))
        self._pool: list[bytearray] = []
        self._broken: BaseException | None = None
        self._asked_for_life = False

    # ------------------------------------------------------------------------------------------------ exchanges

    def submit(self, *requests: Request, related: bool = True) -> Exchange:
        self._check_usable()
        price = sum(request.charge for request in requests)
        # The last credit is kept for asking a silent server for a sign of life.
        while price >= self._credits and self._pending:
            self._pump()
        if price > self._credits:
            if len(requests) == 1:
                raise NoCreditsError(f"a request costs {price} credits, and the server grants {self._credits}")
            return self._one_by_one(requests)
        exchange = Exchange(requests)
        self._enqueue(exchange, requests, related=related)
        return exchange

    def wait(self, exchange: Exchange) -> Exchange:
        if exchange.missing:
            self._check_usable()
            give_up_at = monotonic() + ANSWER_SECONDS
            while exchange.missing:
                if monotonic() > give_up_at:
                    self._broken = TimeoutError(f"no answer came within {ANSWER_SECONDS} seconds")
                    raise self._broken
                self._pump()
        return exchange

    def flush(self) -> None:
        self._check_usable()
        try:
            self._send_queue()
        except BaseException as error:
            self._broken = error
            raise

    def affordable(self, wanted_bytes: int) -> int:
        return min(wanted_bytes, max(1, self._credits + self._charged) * PIECE_BYTES)

    def forget(self, exchange: Exchange) -> None:
        if exchange.missing and exchange.opens_for_longer:
            self.wait(exchange)
        if exchange.missing:
            exchange.forgotten = True
        elif (file_id := exchange.left_open()) is not None:
            self._to_close.append(file_id)

    def recycle(self, exchange: Exchange) -> None:
        if exchange.buffer is not None:
            if len(self._pool) < _POOLED_BUFFERS:
                self._pool.append(exchange.buffer)
            exchange.buffer = None

    def has_ended(self) -> bool:
        if self._broken is not None:
            return True
        if self._pending:
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        try:
            if self._broken is None:
                farewell = self.submit(messages.logoff())
                self.flush()
                give_up_at = monotonic() + GOODBYE_SECONDS
                while farewell.missing and _readable(self._socket, give_up_at - monotonic()):
                    self._pump()
        except (OSError, MalformedError, ForgedError, NoCreditsError):
            pass  # it is gone already
        finally:
            self.abandon()

    def abandon(self) -> None:
        self._broken = self._broken or ConnectionResetError("the connection was closed")
        self._socket.close()

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise ConnectionResetError(f"the connection was given up: {self._broken}") from self._broken

    # -------------------------------------------------------------------------------------------------- sending

    def _enqueue(self, exchange: Exchange, requests: tuple[Request, ...], *, related: bool) -> None:
        last = len(requests) - 1
        flags = FLAG_SIGNED if self._signing else 0
        parts: list[messages.Bytes] = [bytes(4)]
        places = []
        start = 4
        for index, request in enumerate(requests):
            message_id = self._next_id
            length = HEADER_BYTES + len(request.body) + len(request.payload)
            padding = 0 if index == last else -length % 8
            wanted = request.charge
            if index == last:
                wanted += max(0, min(256, WANTED_CREDITS - self._credits - self._charged))
            parts += (
                HEADER.pack(
                    PROTOCOL_ID,
                    HEADER_BYTES,
                    request.charge,
                    0,
                    request.command,
                    wanted,
                    flags | FLAG_RELATED if index and related else flags,
                    0 if index == last else length + padding,
                    message_id,
                    0,
                    self._tree_id,
                    self._session_id,
                    _NO_SIGNATURE,
                ),
                request.body,
                request.payload,
                bytes(padding),
            )
            end = start + length + padding
            places.append((start, end, message_id))
            start = end
            self._next_id += request.charge
            self._credits -= request.charge
            self._charged += request.charge
            self._room_bytes += request.room_bytes
            # What is kept until the answer comes holds no payload.
            self._pending[message_id] = (exchange, index, request._replace(payload=b"") if request.payload else request)
        frame = bytearray().join(parts)
        if self._signing:
            view = memoryview(frame)
            for start, end, message_id in places:
                self._signing.sign(view[start:end], message_id)
        elif self._encryption:
            frame = self._encryption.encrypt(memoryview(frame)[4:])
        frame[:4] = (len(frame) - 4).to_bytes(4, "big")
        self._queue.append(frame)

    def _send_queue(self) -> None:
        self._close_what_was_left_open()
        while self._queue:
            queue, self._queue = self._queue, []
            if len(queue) > 1 and sum(map(len, queue)) <= _JOINED_BYTES:
                queue = [bytearray().join(queue)]
            for frame in queue:
                self._send(memoryview(frame))

    def _send(self, rest: memoryview) -> None:
        """Send all of it; where the server takes nothing more, take what it sends meanwhile, for it may be waiting for
        that itself."""
        give_up_at = 0.0
        while rest:
            try:
                rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]
                continue
            except BlockingIOError:
                pass
            give_up_at = give_up_at or monotonic() + ANSWER_SECONDS
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | select.POLLOUT)
            events = poll.poll(2 * SILENCE_SECONDS * 1000)
            if not events or monotonic() > give_up_at:
                raise TimeoutError("the server took nothing of what was sent")
            if events[0][1] & ~select.POLLOUT:
                self._take_frame(begun=True)

    def _close_what_was_left_open(self) -> None:
        while self._to_close and self._credits:
            request = messages.close(self._to_close.pop())
            exchange = Exchange((request,))
            exchange.forgotten = True
            self._enqueue(exchange, (request,), related=False)

    def _ask_for_life(self) -> None:
        if self._asked_for_life:
            raise TimeoutError(f"the server did not answer within {2 * SILENCE_SECONDS} seconds")
        self._asked_for_life = True
        if self._credits:
            request = messages.echo()
            exchange = Exchange((request,))
            exchange.forgotten = True
            self._enqueue(exchange, (request,), related=False)
            queue, self._queue = self._queue, []
            for frame in queue:
                self._send(memoryview(frame))

    # ------------------------------------------------------------------------------------------------ receiving

    def _pump(self) -> None:
        """Send what waits to be sent, and take one frame."""
        try:
            self._send_queue()
            self._take_frame()
        except BaseException as error:  # be it a task's time limit: in the middle of a frame there is no way back
            self._broken = error
            raise

    def _take_frame(self, *, begun: bool = False) -> None:
        self._receive(self._prefix, begun=begun)
        length = int.from_bytes(self._prefix, "big")
        if not HEADER_BYTES <= length <= self._room_bytes + _UNASKED_BYTES:
            raise MalformedError(f"a message has {length} bytes, which nothing was asked for")
        buffer = self._buffer(length)
        frame = memoryview(buffer)[:length]
        self._receive(frame, begun=True)
        self._asked_for_life = False
        if self._encryption:
            self._take_answers(self._encryption.decrypt(frame), None)
            if len(buffer) >= _POOLED_BYTES:
                self._pool.append(buffer)
        else:
            self._take_answers(frame, buffer if len(buffer) >= _POOLED_BYTES else None)

    def _buffer(self, length: int) -> bytearray:
        """A large buffer is used again: the system takes long to make a new one."""
        if length < _POOLED_BYTES:
            return bytearray(length)
        while self._pool:
            buffer = self._pool.pop()
            if len(buffer) >= length:
                return buffer
        return bytearray(max(length, _POOLED_BYTES))

    def _receive(self, view: memoryview, *, begun: bool) -> None:
        """Fill `view`. `begun`: the beginning of its frame has come."""
        give_up_at = 0.0
        while view:
            try:
                count = self._socket.recv_into(view, len(view), socket.MSG_WAITALL)
            except BlockingIOError:  # the time limit of the socket
                if not begun:
                    self._ask_for_life()
                    continue
                count = -1
            if count == len(view):
                return
            if count == 0:
                raise ConnectionResetError("the server ended the connection")
            begun = True
            now = monotonic()
            give_up_at = give_up_at or now + FRAME_SECONDS
            if now > give_up_at:
                raise TimeoutError(f"a message did not come to its end within {FRAME_SECONDS} seconds")
            view = view[max(count, 0) :]

    def _take_answers(self, frame: memoryview, buffer: bytearray | None) -> None:
        """Hand each message of `frame` to its exchange. A `buffer` that holds a single message comes with it."""
        start, end = 0, len(frame)
        while True:
            if end - start < HEADER_BYTES:
                raise MalformedError("a message ends within its header")
            protocol_id, size, _, status, command, granted, flags, step, message_id = _ANSWER.unpack_from(frame, start)
            if protocol_id != PROTOCOL_ID or size != HEADER_BYTES or not flags & FLAG_FROM_SERVER:
                raise ForgedError("an answer is not one of SMB 2, or not encrypted or unencrypted as agreed on")
            if step and (step % 8 or not HEADER_BYTES < step <= end - start):
                raise MalformedError("the messages of a frame overlap")
            message = frame[start : start + step] if step else frame[start:]
            self._take_answer(message, status, command, granted, flags, message_id, None if start or step else buffer)
            if not step:
                return
            start += step

    def _take_answer(
        self,
        message: memoryview,
        status: int,
        command: int,
        granted: int,
        flags: int,
        message_id: int,
        buffer: bytearray | None,
    ) -> None:
        if message_id == NO_MESSAGE_ID:
            return  # an oplock or lease break: we hold none, so that there is nothing to give back
        pending = self._pending.get(message_id)
        if pending is None:
            raise MalformedError("an answer belongs to no request")
        exchange, index, request = pending
        if command != request.command or len(message) > request.room_bytes:
            raise MalformedError("an answer is not one to its request")
        if self._signing:
            if flags & FLAG_SIGNED:
                self._signing.verify(message, message_id)
            # [MS-SMB2] 3.2.5.1.3: those two need no signature, for the server may have no key (any more) to sign with.
            elif status not in (Status.PENDING, Status.USER_SESSION_DELETED):
                raise ForgedError("an answer bears no signature although signing was agreed on")
        self._credits += granted
        if status == Status.PENDING:
            return
        del self._pending[message_id]
        self._charged -= request.charge
        self._room_bytes -= request.room_bytes
        exchange.statuses[index] = status
        exchange.missing -= 1
        if not exchange.forgotten:
            exchange.messages[index] = message
            exchange.buffer = buffer
            return
        if index == 0:
            exchange.messages[0] = message  # in which a handle may have been opened
        if not exchange.missing and (file_id := exchange.left_open()) is not None:
            self._to_close.append(file_id)


def _set_time_limit(sock: socket.socket, seconds: float) -> None:
    """Let blocking calls end after `seconds`, see SO_RCVTIMEO in socket(7); a timeout of Python's own would cost a
    system call more each time."""
    sock.setblocking(True)
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def _readable(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
