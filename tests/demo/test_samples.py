"""The sample files: their paths, sizes, shapes and dates, and that they are made once only."""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harvest.demo.samples import write_samples

NMR_SIZES = {
    "20260115_glucose_1H/acqus": 998,
    "20260115_glucose_1H/fid": 8192,
    "20260115_glucose_1H/pdata/1/1r": 8192,
    "20260115_glucose_1H/pdata/1/procs": 313,
    "20260201_alanine_13C/acqus": 470,
    "20260201_alanine_13C/fid": 16384,
    "20260201_alanine_13C/pdata/1/1r": 8192,
    "20260210_ethanol_COSY/acqus": 485,
    "20260210_ethanol_COSY/fid": 32768,
    "20260210_ethanol_COSY/pdata/1/1r": 8192,
}


@pytest.fixture
def shares(tmp_path: Path) -> Path:
    write_samples(tmp_path)
    return tmp_path


def files_below(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_the_nmr_share_holds_ten_files_of_known_paths_and_sizes(shares: Path) -> None:
    assert {path: len(content) for path, content in files_below(shares / "nmr").items()} == NMR_SIZES


def test_every_share_holds_a_few_small_files_and_none_is_empty(shares: Path) -> None:
    assert sorted(path.name for path in shares.iterdir()) == ["hplc", "ms", "nmr", "tem"]
    for share in shares.iterdir():
        sizes = [len(content) for content in files_below(share).values()]
        assert len(sizes) >= 4
        assert min(sizes) > 0
        assert sum(sizes) < 200_000


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("20260115_glucose_1H", {"PULPROG": "zg30", "SOLVENT": "D2O", "NUC1": "1H"}),
        ("20260201_alanine_13C", {"PULPROG": "zgpg30", "SOLVENT": "D2O", "NUC1": "13C"}),
        ("20260210_ethanol_COSY", {"PULPROG": "cosygpqf", "SOLVENT": "CDCl3", "NUC1": "1H"}),
    ],
)
def test_acqus_tells_pulse_programme_solvent_and_nucleus(shares: Path, name: str, parameters: dict[str, str]) -> None:
    text = (shares / "nmr" / name / "acqus").read_text(encoding="ascii")
    assert text.startswith("##TITLE= ")
    assert text.endswith("\n##END=\n")
    found = dict(re.findall(r"^##\$(PULPROG|SOLVENT|NUC1)= <(.*)>$", text, re.MULTILINE))
    assert found == parameters
    points = int(re.findall(r"^##\$TD= (\d+)$", text, re.MULTILINE)[0])
    assert points * 4 == (shares / "nmr" / name / "fid").stat().st_size


def test_a_fid_decays(shares: Path) -> None:
    content = (shares / "nmr" / "20260115_glucose_1H" / "fid").read_bytes()
    values = struct.unpack(f"<{len(content) // 4}i", content)
    quarter = len(values) // 4
    assert max(map(abs, values[:quarter])) > 10 * max(map(abs, values[-quarter:])) > 0


def test_binary_files_begin_as_their_formats_do(shares: Path) -> None:
    for path, content in files_below(shares).items():
        if path.endswith((".raw", ".sld")):
            assert content.startswith(b"\x01\xa1F\0i\0n\0n\0i\0g\0a\0n\0"), path
        elif path.endswith(".tif"):
            assert content.startswith(b"II*\0"), path
        elif path.endswith(".mrc"):
            assert content[208:212] == b"MAP ", path
        elif path.endswith(".dm4"):
            version, length, little_endian = struct.unpack_from(">IQI", content)
            assert (version, length + 20, little_endian) == (4, len(content), 1), path
        elif path.endswith("_FUNC001.IDX"):
            assert len(content) % 22 == 0, path


def test_the_mzml_file_is_well_formed_and_counts_its_values(shares: Path) -> None:
    [path] = (shares / "ms").rglob("*.mzML")
    root = ElementTree.parse(path).getroot()
    namespace = {"p": "http://psi.hupo.org/ms/mzml"}
    spectrum = root.find(".//p:spectrum", namespace)
    assert spectrum is not None
    assert [
        len(array.findtext("p:binary", "", namespace)) for array in spectrum.iterfind(".//p:binaryDataArray", namespace)
    ] == [int(array.attrib["encodedLength"]) for array in spectrum.iterfind(".//p:binaryDataArray", namespace)]


def test_every_file_is_dated_to_the_day_in_its_name(shares: Path) -> None:
    for path in shares.rglob("*"):
        if path.is_file():
            day = re.search(r"(2026\d{4})_", str(path.relative_to(shares)))
            assert day is not None
            assert datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y%m%d") == day[1]


def test_two_generations_are_the_same_to_the_byte_and_the_second(
    shares: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    write_samples(other)
    assert files_below(other) == files_below(shares)
    for path in files_below(shares):
        assert (other / path).stat().st_mtime == (shares / path).stat().st_mtime


def test_a_file_that_is_there_already_is_left_as_it_is(shares: Path) -> None:
    changed, removed = shares / "nmr/20260115_glucose_1H/fid", shares / "nmr/20260201_alanine_13C/fid"
    changed.write_bytes(b"measured anew")
    stamp = changed.stat().st_mtime_ns
    removed.unlink()
    write_samples(shares)
    assert changed.read_bytes() == b"measured anew"
    assert changed.stat().st_mtime_ns == stamp
    assert removed.stat().st_size == 16384
