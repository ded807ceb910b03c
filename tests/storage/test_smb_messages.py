"""The messages of SMB: whatever a server sends is understood or refused, and costs no more than it is long."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smbprotocol.connection import SigningAlgorithms
from smbprotocol.file_info import FileLinkInformation, FileRenameInformation
from smbprotocol.open import (
    SMB2CloseRequest,
    SMB2CreateRequest,
    SMB2FlushRequest,
    SMB2QueryDirectoryRequest,
    SMB2QueryInfoRequest,
    SMB2ReadRequest,
    SMB2SetInfoRequest,
    SMB2WriteRequest,
)

from harvest.storage.smb import messages
from harvest.storage.smb.classify import LIBRARY_ERRORS
from harvest.storage.smb.connection import PipelinedConnection
from harvest.storage.smb.listing import MalformedListingError, moment, parse_listing
from harvest.storage.smb.messages import HEADER, HEADER_BYTES, Bytes, MalformedError, Request
from harvest.storage.smb.protection import SIGNINGS
from harvest.storage.smb.write import filetime

BOUNDED = settings(derandomize=True, max_examples=120, deadline=None)
ASKED_BYTES = 300
KEY = bytes(range(16))
EARLIEST = datetime(1601, 1, 2)  # noqa: DTZ001 Hypothesis adds the zone

# What Samba 4.17 answered, recorded.
TIMES = "a7b7307c3d7add01a7b7307c3d7add01824e317c3d7add01824e317c3d7add01"
LINE = TIMES + "0000000000000000000000000000000010000000"
BODIES = {
    "create": f"5900000001000000{TIMES}00000000000000000000000000000000"
    "1000000000000000e3cac78b000000006f0337a2000000000000000000000000",
    "close": "3c000000" + "00" * 56,
    "close that tells": f"3c00010000000000{TIMES}0010000000000000030000000000000020000000",
    "write": "11000000050000000000000000000000",
    "read": "11005000030000000000000000000000666964",
    "network open": f"0900480038000000{TIMES}000000000000000000000000000000001000000000000000",
    "internal": "09004800080000002ae0200000000000",
    "attribute tag": "09004800080000002000000000000000",
    "full size": "0900480020000000" + "08cf320200000000" * 3 + "0200000000020000",
    "listing": f"09004800020100005800000000000000{LINE}02000000000000000000000013e02000000000002e00"
    f"0000000000005800000000000000{LINE}04000000000000000000000006e02000000000002e002e00"
    f"000000000000000000000000{LINE}02000000000000000000000022e02000000000006100",
    "flush": "04000000",
    "set": "0200",
    "error": "090000000000000000",
}
ANSWERS = [bytes(HEADER_BYTES) + bytes.fromhex(body) for body in BODIES.values()]


def whole_listing(answer: memoryview) -> list[Any]:
    return list(parse_listing(messages.queried(answer, ASKED_BYTES)))


PARSERS: dict[str, Callable[[memoryview], Any]] = {
    "create": messages.opened,
    "close that tells": messages.closed,
    "read": lambda answer: messages.content(answer, ASKED_BYTES),
    "write": lambda answer: messages.written(answer, ASKED_BYTES),
    "network open": messages.network_open,
    "internal": messages.internal,
    "attribute tag": messages.reparse_tag,
    "full size": messages.free_bytes,
    "listing": whole_listing,
}


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes] = ANSWERS) -> bytes:
    """A real answer, cut or prolonged, and with some of its numbers replaced."""
    answer = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        value = draw(st.sampled_from([0, 1, 7, 8, 63, 64, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF]))
        width = draw(st.sampled_from([1, 2, 4, 8]))
        at = draw(st.integers(0, len(answer)))
        answer[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    end = draw(st.integers(0, len(answer)))
    return bytes(answer[:end] if draw(st.booleans()) else answer) + draw(st.binary(max_size=50))


@pytest.mark.parametrize("kind", PARSERS)
def test_a_real_answer_is_understood(kind: str) -> None:
    found = PARSERS[kind](memoryview(bytes(HEADER_BYTES) + bytes.fromhex(BODIES[kind])))

    expected = {"read": b"fid", "write": 5, "internal": 0x20E02A, "attribute tag": 0}
    assert found == expected.get(kind, found)
    if kind == "listing":
        assert [line.name for line in found] == [".", "..", "a"]


@pytest.mark.parametrize("kind", PARSERS)
@BOUNDED
@given(octets=st.one_of(st.binary(max_size=600), damaged()))
def test_an_answer_is_understood_or_refused(kind: str, octets: bytes) -> None:
    try:
        found = PARSERS[kind](memoryview(octets))
    except (MalformedError, MalformedListingError):
        return

    if isinstance(found, memoryview):
        assert len(found) <= ASKED_BYTES
        assert found.obj is octets, "it is a copy"
    if isinstance(found, list):
        assert sum(80 + 2 * len(line.name) for line in found) <= len(octets)
    if isinstance(found, int):
        assert found >= 0


# ---------------------------------------------------------------------------------------------------------- on the wire


def answer(request: Request, message_id: int, body: bytes, *, step: int = 0) -> bytearray:
    return bytearray(
        HEADER.pack(b"\xfeSMB", 64, 1, 0, request.command, 8, 1 | 8, step, message_id, 0, 0, 1, b"") + body
    )


REQUESTS = (
    messages.create("fid", access=messages.READ_DATA),
    messages.read(0, ASKED_BYTES),
    messages.close(tell=True),
)
FRAME = b"".join(
    answer(request, number, bytes.fromhex(BODIES[kind]).ljust(length, b"\0"), step=64 + length if length else 0)
    for number, (request, kind, length) in enumerate(
        zip(REQUESTS, ("create", "read", "close that tells"), (96, 24, 0), strict=True)
    )
)


def hear(frames: Bytes) -> list[int] | str:
    """What becomes of a compound that is answered so: the statuses, or the error."""
    ours, theirs = socket.socketpair()
    with theirs:
        driven = PipelinedConnection(
            ours,
            session_id=1,
            tree_id=1,
            next_message_id=0,
            credits=64,
            signing=SIGNINGS[SigningAlgorithms.HMAC_SHA256](KEY),
            encryption=None,
        )
        try:
            exchange = driven.submit(*REQUESTS)
            theirs.sendall(frames)
            theirs.shutdown(socket.SHUT_WR)
            driven.wait(exchange)
            assert all(message is None or len(message) <= len(frames) for message in exchange.messages)
            return exchange.statuses
        except LIBRARY_ERRORS as error:
            return str(error)
        finally:
            driven.abandon()


def signed(frame: bytes) -> bytes:
    """The frame, each of its messages with a good signature, as far as they can be told apart."""
    rest, done = bytearray(frame), bytearray()
    while len(rest) >= HEADER_BYTES:
        step = int.from_bytes(rest[20:24], "little") or len(rest)
        message, rest = rest[:step], rest[step:]
        if len(message) >= HEADER_BYTES:
            message[48:64] = bytes(16)
            SIGNINGS[SigningAlgorithms.HMAC_SHA256](KEY).sign(memoryview(message), 0)
        done += message
    return bytes(done + rest)


def framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + frame


def test_a_compound_is_heard() -> None:
    assert hear(framed(signed(FRAME))) == [0, 0, 0]


@BOUNDED
@given(octets=st.one_of(st.binary(max_size=300), damaged([framed(FRAME), framed(signed(FRAME))])))
@example(b"")
def test_octets_are_heard_or_refused(octets: bytes) -> None:
    assert hear(octets)


@BOUNDED
@given(frame=damaged([FRAME]), split=st.integers(0, 300))
def test_what_a_server_signs_is_heard_or_refused(frame: bytes, split: int) -> None:
    """Also where the answers come in two frames, and the first of them twice."""
    whole = signed(frame)

    assert hear(framed(whole[:split]) + framed(whole[split:]) + framed(whole[:split]))


@pytest.mark.parametrize("length", [0, 63, 0x40000, 0xFF_FFFF, 0xFFFF_FFFF])
def test_no_room_is_made_for_what_was_not_asked_for(length: int) -> None:
    assert "bytes" in str(hear(length.to_bytes(4, "big") + bytes(70)))


# ------------------------------------------------------------------------------------------------------------ requests


def laid_out(structure: Any, **fields: Any) -> bytes:
    for name, value in fields.items():
        structure[name] = value
    packed: bytes = structure.pack()
    return packed


def whole(request: Request) -> bytes:
    return request.body + bytes(request.payload)


def test_requests_are_those_of_smbprotocol() -> None:
    """The library's layout is the other opinion on the specification."""
    file_id = bytes(range(16))
    name = "run\\fid".encode("utf-16-le")

    assert whole(messages.close(file_id, tell=True)) == laid_out(SMB2CloseRequest(), flags=1, file_id=file_id)
    assert whole(messages.flush(file_id)) == laid_out(SMB2FlushRequest(), file_id=file_id)
    assert whole(
        messages.create("run\\fid", access=3, options=0x40, disposition=2, share=4, attributes=0x20)
    ) == laid_out(
        SMB2CreateRequest(),
        impersonation_level=2,
        desired_access=3,
        file_attributes=0x20,
        share_access=4,
        create_disposition=2,
        create_options=0x40,
        buffer_path=name,
    )
    assert whole(messages.write(77, b"content", file_id)) == laid_out(
        SMB2WriteRequest(), offset=77, file_id=file_id, buffer=b"content"
    )
    assert whole(messages.read(5, 1000, file_id)) == laid_out(
        SMB2ReadRequest(), length=1000, offset=5, file_id=file_id, padding=b"\x50"
    )
    assert whole(messages.query_info(6, 8, file_id)) == laid_out(
        SMB2QueryInfoRequest(), info_type=1, file_info_class=6, output_buffer_length=8, file_id=file_id
    )
    assert whole(messages.query_directory(4096, file_id, restart=True)) == laid_out(
        SMB2QueryDirectoryRequest(),
        file_information_class=38,
        flags=1,
        file_id=file_id,
        output_buffer_length=4096,
        buffer="*".encode("utf-16-le"),
    )


@pytest.mark.parametrize("replace", [False, True])
def test_changes_of_names_are_those_of_smbprotocol(replace: bool) -> None:
    for ours, theirs in ((messages.link, FileLinkInformation()), (messages.rename, FileRenameInformation())):
        information = laid_out(theirs, replace_if_exists=replace, file_name="run\\fid")
        request = SMB2SetInfoRequest()
        expected = laid_out(
            request, info_type=1, file_info_class=theirs.INFO_CLASS, file_id=messages.RELATED, buffer=information
        )
        assert whole(ours("run\\fid", replace=replace)) == expected


@BOUNDED
@given(st.datetimes(min_value=EARLIEST, timezones=st.just(UTC)))
def test_a_time_comes_back_from_the_wire_as_it_was(at: datetime) -> None:
    request = messages.set_times(modified=filetime(at))
    (modified,) = struct.unpack_from("<q", request.body, 32 + 16)

    assert moment(modified) == at


def test_a_price_is_that_of_the_larger_direction() -> None:
    assert [messages.charge(length) for length in (0, 1, 65536, 65537, 1 << 20)] == [1, 1, 1, 2, 16]
    assert messages.write(0, bytes(65537)).charge == 2
    assert messages.read(0, 1 << 20).charge == 16
