"""Made-up signals, as the bytes or numbers that the sample files hold."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence

Files = Iterator[tuple[str, bytes]]
"""Path on the share, separated by "/", and content."""


def int32(values: Iterable[float]) -> bytes:
    whole = [round(value) for value in values]
    return struct.pack(f"<{len(whole)}i", *whole)


def decay(points: int, cycles: Sequence[float]) -> bytes:
    """A free induction decay: `points` complex points, real and imaginary in turn, of one resonance per frequency."""
    values: list[float] = []
    for n in range(points):
        turn, envelope = 2 * math.pi * n / points, 1e6 * math.exp(-4 * n / points)
        values += [
            envelope * sum(math.cos(c * turn) for c in cycles),
            envelope * sum(math.sin(c * turn) for c in cycles),
        ]
    return int32(values)


def lorentzian_lines(points: int, centres: Sequence[float]) -> bytes:
    """A processed spectrum of Lorentzian lines at `centres` (0 to 1)."""
    width = 0.002
    return int32(
        1e7 * sum(width**2 / ((n / points - centre) ** 2 + width**2) for centre in centres) for n in range(points)
    )


def gaussian_peaks(points: int, peaks: Sequence[tuple[float, float]]) -> list[float]:
    """A chromatogram or picture line of Gaussian peaks, each a centre (0 to 1) and a height, on a small baseline."""
    return [
        5 + sum(height * math.exp(-(((n / points - centre) / 0.012) ** 2)) for centre, height in peaks)
        for n in range(points)
    ]
