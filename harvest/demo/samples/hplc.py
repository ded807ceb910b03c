"""Waters MassLynx .raw folders, as a UPLC-MS writes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime

from harvest.demo.samples.signals import Files, gaussian_peaks

_RUNS = (
    ("20260119_caffeine_std_01", "Caffeine standard 10 ug/mL", "1:A,1", ((0.31, 900.0),)),
    ("20260119_caffeine_std_02", "Caffeine standard 50 ug/mL", "1:A,2", ((0.31, 4500.0),)),
    ("20260203_plasma_batch7_S12", "Plasma extract, batch 7, sample 12", "2:C,4", ((0.22, 700.0), (0.55, 2100.0))),
)
_SCANS = 120
_POINTS_PER_SCAN = 12


def files() -> Files:
    for name, sample, bottle, peaks in _RUNS:
        top = f"{name}.raw"
        heights = gaussian_peaks(_SCANS, peaks)
        yield f"{top}/_HEADER.TXT", _masslynx_header(name, sample, bottle)
        yield f"{top}/_INLET.INF", _masslynx_inlet()
        yield f"{top}/_extern.inf", _masslynx_tuning()
        yield f"{top}/_FUNCTNS.INF", struct.pack("<HfffI", 0x0901, 0.2, 0.1, 0.0, 0).ljust(416, b"\0")
        yield f"{top}/_FUNC001.IDX", b"".join(_masslynx_index(n, height) for n, height in enumerate(heights))
        yield f"{top}/_FUNC001.DAT", b"".join(_masslynx_scan(height) for height in heights)
        yield (
            f"{top}/_CHROMS.INF",
            _masslynx_table(0x55, ((1, 2, 0, "Flags"), (2, 5, 4, "Description")))
            + (struct.pack("<I", 0) + b"(1) ACQUITY TUV ChA 254nm".ljust(81, b"\0")),
        )
        chromatogram = b"".join(struct.pack("<ff", n * 5 / _SCANS, height) for n, height in enumerate(heights))
        yield f"{top}/_CHRO001.DAT", _masslynx_table(8, ((1, 3, 0, "Time"), (2, 3, 4, "Intensity"))) + chromatogram


def _masslynx_header(name: str, sample: str, bottle: str) -> bytes:
    acquired_at = datetime.strptime(name[:8], "%Y%m%d").replace(tzinfo=UTC)
    fields = {
        "Version": "01.00",
        "Acquired Name": name,
        "Acquired Date": acquired_at.strftime("%d-%b-%Y"),
        "Acquired Time": "09:41:07",
        "Job Code": "",
        "Task Code": "",
        "User Name": "acquity",
        "Instrument": "ACQUITY-QDa",
        "Conditions": "",
        "Sample Description": sample,
        "Solvent Delay": "0.0000",
        "SampleID": name.rpartition("_")[2],
        "Bottle Number": bottle,
        "Inlet Method": r"C:\MassLynx\Default.pro\ACQUDB\BEH_C18_5min",
        "MS Method": r"C:\MassLynx\Default.pro\ACQUDB\ESI_pos_50_1200.EXP",
        "Tune Method": r"C:\MassLynx\Default.pro\ACQUDB\ESI_pos.IPR",
        "Cal Function 1": "0.000000000000000e0,1.000000000000000e0,T0",
    }
    return "".join(f"$$ {field}: {value}\r\n" for field, value in fields.items()).encode("ascii")


def _masslynx_inlet() -> bytes:
    lines = (
        "ACE Experimental Record", "", "---------------------   Run method parameters   ----------------", "",
        "-- PUMP --", "", "Waters Acquity Binary Solvent Manager", "Run Time:                   5.00 min",
        "Solvent Selection A:        Water + 0.1% formic acid",
        "Solvent Selection B:        Acetonitrile + 0.1% formic acid",
        "[Gradient Table]", "  Time(min)  Flow Rate  %A     %B     Curve",
        "  Initial    0.400      95.0   5.0    Initial", "  3.50       0.400      5.0    95.0   6",
        "  4.20       0.400      95.0   5.0    1", "", "-- END PUMP --",
    )  # fmt: skip
    return "\r\n".join((*lines, "")).encode("ascii")


def _masslynx_tuning() -> bytes:
    lines = (
        "Parameters for C:\\MassLynx\\Default.pro\\ACQUDB\\ESI_pos_50_1200.EXP", "",
        "Instrument Parameters - Function 1:", "Polarity\tES+", "Capillary (kV)\t0.80\t0.80", "Cone (V)\t15.00\t15.00",
        "Source Temperature (\xb0C)\t120\t120", "Probe Temperature (\xb0C)\t600\t600",
    )  # fmt: skip
    return "\r\n".join((*lines, "")).encode("cp1252")


def _masslynx_index(scan: int, height: float) -> bytes:
    """One scan's 22 bytes: where it begins, how many points, total ion current, retention time in minutes."""
    return struct.pack("<IIffHI", scan * _POINTS_PER_SCAN * 6, _POINTS_PER_SCAN, height * 10, scan * 5 / _SCANS, 0, 0)


def _masslynx_scan(height: float) -> bytes:
    """A scan's points, six bytes each: intensity, and mass in 1/128 Da."""
    masses = (138, 195, 217, 239, 301, 355, 410, 466, 523, 610, 702, 815)
    return b"".join(
        struct.pack("<HI", min(65535, round(height / (1 + rank))), mass * 128) for rank, mass in enumerate(masses)
    )


def _masslynx_table(row_bytes: int, columns: Sequence[tuple[int, int, int, str]]) -> bytes:
    """The 128-byte head of a MassLynx table: row size, and per column its number, type, offset and name."""
    head = struct.pack("<HHHH", 128, 1, row_bytes, len(columns)).ljust(32, b"\0")
    for number, kind, offset, name in columns:
        head += (struct.pack("<HHH", number, kind, offset) + name.encode("ascii")).ljust(48, b"\0")
    return head
