"""DigitalMicrograph, TIFF and MRC pictures, as an electron microscope writes them."""

from __future__ import annotations

import math
import struct

from harvest.demo.samples.signals import Files

_SIDE = 64


def files() -> Files:
    top = "20260128_gold_nanoparticles"
    yield f"{top}/20260128_AuNP_HRTEM_0001.dm4", _dm4(_picture(6))
    yield f"{top}/20260128_AuNP_HRTEM_0002.dm4", _dm4(_picture(9))
    yield f"{top}/20260128_AuNP_overview.tif", _tiff(_picture(3))
    yield "20260212_ferritin_tomo/20260212_tilt_p00.mrc", _mrc(_picture(5))


def _picture(fringes: int) -> bytes:
    """Lattice fringes, 16 bits a pixel, little-endian, row by row."""
    pixels = [
        round(2000 + 1500 * math.cos(2 * math.pi * fringes * x / _SIDE) * math.cos(2 * math.pi * fringes * y / _SIDE))
        for y in range(_SIDE)
        for x in range(_SIDE)
    ]
    return struct.pack(f"<{len(pixels)}H", *pixels)


def _tiff(pixels: bytes) -> bytes:
    """A baseline greyscale TIFF 6.0: header, one directory, one strip."""
    start = 8
    # tag, type (3 = SHORT, 4 = LONG), value
    fields = (
        (256, 3, _SIDE), (257, 3, _SIDE), (258, 3, 16), (259, 3, 1), (262, 3, 1),
        (273, 4, start), (277, 3, 1), (278, 3, _SIDE), (279, 4, len(pixels)),
    )  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    head = struct.pack("<2sHI", b"II", 42, start + len(pixels))
    return head + pixels + struct.pack("<H", len(fields)) + directory + struct.pack("<I", 0)


def _mrc(pixels: bytes) -> bytes:
    """One image in MRC2014: a header of 1024 bytes, mode 6 (unsigned 16-bit)."""
    words = struct.pack("<10i", _SIDE, _SIDE, 1, 6, 0, 0, 0, _SIDE, _SIDE, 1)
    cell = struct.pack("<6f3i3f", 128.0, 128.0, 2.0, 90.0, 90.0, 90.0, 1, 2, 3, 500.0, 3500.0, 2000.0)
    head = (words + cell).ljust(208, b"\0") + b"MAP " + bytes((0x44, 0x44, 0, 0)) + struct.pack("<fi", -1.0, 1)
    return (head + b"Titan Themis 300, tilt series".ljust(80)).ljust(1024, b"\0") + pixels


def _dm4(pixels: bytes) -> bytes:
    """Gatan DigitalMicrograph 4: one image in a tree of tags. Sizes are big-endian, values little-endian."""
    dimensions = _dm4_group(_dm4_number("", _SIDE), _dm4_number("", _SIDE))
    # An array tag: 20 = array, 4 = unsigned 16-bit, then the number of elements.
    data = _dm4_value("Data", (20, 4, len(pixels) // 2), pixels)
    image_data = _dm4_group(
        data, _dm4_number("DataType", 10), _dm4_branch("Dimensions", dimensions), _dm4_number("PixelDepth", 2)
    )
    image = _dm4_group(_dm4_branch("ImageData", image_data))
    root = _dm4_group(_dm4_branch("ImageList", _dm4_group(_dm4_branch("", image))))
    return struct.pack(">IQI", 4, len(root) + 4, 1) + root + bytes(8)


def _dm4_group(*tags: bytes) -> bytes:
    return struct.pack(">BBQ", 1, 0, len(tags)) + b"".join(tags)


def _dm4_branch(name: str, group: bytes) -> bytes:
    return struct.pack(">BH", 20, len(name)) + name.encode("ascii") + struct.pack(">Q", len(group)) + group


def _dm4_value(name: str, description: tuple[int, ...], value: bytes) -> bytes:
    body = b"%%%%" + struct.pack(f">{len(description) + 1}Q", len(description), *description) + value
    return struct.pack(">BH", 21, len(name)) + name.encode("ascii") + struct.pack(">Q", len(body)) + body


def _dm4_number(name: str, number: int) -> bytes:
    return _dm4_value(name, (5,), struct.pack("<I", number))
