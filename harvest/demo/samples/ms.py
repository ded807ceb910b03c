"""Thermo Xcalibur .raw files, a sequence, and an mzML conversion, as an Orbitrap writes them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import quoteattr

from harvest.demo.samples.signals import Files, gaussian_peaks, int32

_ACQUISITIONS = (
    ("20260122_HeLa_QC/20260122_HeLa_200ng_QC_01", ((0.25, 8e4), (0.61, 3e5))),
    ("20260122_HeLa_QC/20260122_HeLa_200ng_QC_02", ((0.26, 7e4), (0.60, 3.1e5))),
    ("20260205_HER2_phospho/20260205_HER2_phospho_F03", ((0.4, 2e5), (0.45, 9e4), (0.8, 5e4))),
)


def files() -> Files:
    for number, (path, peaks) in enumerate(_ACQUISITIONS, start=1):
        yield f"{path}.raw", _xcalibur_head(path, version=66) + int32(gaussian_peaks(3000 + 400 * number, peaks))
    name, peaks = _ACQUISITIONS[0]
    yield f"{name}.mzML", _mzml(name.rpartition("/")[2], gaussian_peaks(200, peaks))
    rows = "\n".join(f"{path.rpartition('/')[2]}\tC:\\Xcalibur\\data\t2 uL" for path, _ in _ACQUISITIONS)
    yield "20260122_HeLa_QC/20260122_sequence.sld", _xcalibur_head("sequence", version=66) + rows.encode("utf-16-le")


def _xcalibur_head(name: str, *, version: int) -> bytes:
    """The head that Xcalibur's binary files share: magic, "Finnigan" in UTF-16, version, who wrote it and when."""
    day = datetime.strptime("20260122" if not name[:8].isdigit() else name[:8], "%Y%m%d").replace(tzinfo=UTC)
    filetime = round((day - datetime(1601, 1, 1, tzinfo=UTC)).total_seconds()) * 10_000_000
    user = "exploris".encode("utf-16-le").ljust(108, b"\0")
    magic = struct.pack("<H", 0xA101) + "Finnigan".encode("utf-16-le").ljust(34, b"\0")
    stamp = struct.pack("<Q", filetime) + user
    return (magic + struct.pack("<I", version) + stamp + stamp).ljust(1420, b"\0")


def _mzml(run: str, intensities: Sequence[float]) -> bytes:
    """One centroided MS1 spectrum in mzML 1.1.0 (HUPO-PSI)."""
    masses = [300 + 6 * n for n in range(len(intensities))]
    mass_text, intensity_text = (
        base64.b64encode(struct.pack(f"<{len(values)}d", *values)).decode("ascii") for values in (masses, intensities)
    )
    arrays = "".join(
        f"""
          <binaryDataArray encodedLength="{len(text)}">
            <cvParam cvRef="MS" accession="MS:1000523" name="64-bit float"/>
            <cvParam cvRef="MS" accession="MS:1000576" name="no compression"/>
            <cvParam cvRef="MS" {term}/>
            <binary>{text}</binary>
          </binaryDataArray>"""
        for text, term in (
            (mass_text, 'accession="MS:1000514" name="m/z array"'),
            (intensity_text, 'accession="MS:1000515" name="intensity array"'),
        )
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<mzML xmlns="http://psi.hupo.org/ms/mzml" version="1.1.0" id={quoteattr(run)}>
  <cvList count="1">
    <cv id="MS" fullName="PSI-MS" version="4.1.0" URI="http://purl.obolibrary.org/obo/ms/psi-ms.obo"/>
  </cvList>
  <fileDescription>
    <fileContent><cvParam cvRef="MS" accession="MS:1000579" name="MS1 spectrum"/></fileContent>
  </fileDescription>
  <softwareList count="1">
    <software id="Xcalibur" version="4.4"><cvParam cvRef="MS" accession="MS:1000532" name="Xcalibur"/></software>
  </softwareList>
  <instrumentConfigurationList count="1">
    <instrumentConfiguration id="IC1">
      <cvParam cvRef="MS" accession="MS:1003028" name="Orbitrap Exploris 480"/>
    </instrumentConfiguration>
  </instrumentConfigurationList>
  <dataProcessingList count="1">
    <dataProcessing id="DP1">
      <processingMethod order="1" softwareRef="Xcalibur">
        <cvParam cvRef="MS" accession="MS:1000544" name="Conversion to mzML"/>
      </processingMethod>
    </dataProcessing>
  </dataProcessingList>
  <run id={quoteattr(run)} defaultInstrumentConfigurationRef="IC1">
    <spectrumList count="1" defaultDataProcessingRef="DP1">
      <spectrum index="0" id="controllerType=0 controllerNumber=1 scan=1" defaultArrayLength="{len(masses)}">
        <cvParam cvRef="MS" accession="MS:1000511" name="ms level" value="1"/>
        <cvParam cvRef="MS" accession="MS:1000127" name="centroid spectrum"/>
        <binaryDataArrayList count="2">{arrays}
        </binaryDataArrayList>
      </spectrum>
    </spectrumList>
  </run>
</mzML>
""".encode()
