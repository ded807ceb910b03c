"""Bruker TopSpin data sets, as an NMR spectrometer writes them."""

from __future__ import annotations

from dataclasses import dataclass

from harvest.demo.samples.signals import Files, decay, lorentzian_lines


@dataclass(frozen=True)
class _Experiment:
    """One data set as TopSpin names its parameters, with the sizes its files must have."""

    name: str
    pulse_program: str
    solvent: str
    nucleus: str
    frequency_mhz: float
    scans: int
    acqus_bytes: int
    fid_bytes: int
    resonances: tuple[float, ...]
    more: tuple[str, ...] = ()
    with_procs: bool = False


_EXPERIMENTS = (
    _Experiment(
        "20260115_glucose_1H", "zg30", "D2O", "1H", 600.13, 16, 998, 8192, (31, 57, 88, 140), with_procs=True,
        more=(
            "##$AMP= (0..31)", "100 " * 31 + "100", "##$AQ_mod= 3", "##$AUNM= <au_zg>", "##$BF1= 600.13",
            "##$BF2= 150.9178988", "##$D= (0..31)", "0 1 0.003 " + "0 " * 28 + "0",
            "##$DATE= 1768467600", "##$DECIM= 1664", "##$DIGMOD= 1", "##$DIGTYP= 12", "##$DS= 2", "##$DSPFVS= 20",
            "##$EXP= <PROTON>",
            "##$GRPDLY= 67.9842376708984", "##$INSTRUM= <spect>", "##$LOCNUC= <2H>", "##$O1= 2820.61",
            "##$O2= 0", "##$PARMODE= 0", "##$POWMOD= 0", "##$PROBHD= <5 mm CPTCI 1H-13C/15N/D Z-GRD>",
            "##$RG= 64", "##$RO= 20", "##$SW= 20.0276", "##$TE= 298.0",
        ),
    ),
    _Experiment("20260201_alanine_13C", "zgpg30", "D2O", "13C", 150.903, 1024, 470, 16384, (40, 230, 701)),
    _Experiment("20260210_ethanol_COSY", "cosygpqf", "CDCl3", "1H", 600.13, 4, 485, 32768, (95, 310, 312)),
)  # fmt: skip

_SPECTRUM_POINTS = 2048


def files() -> Files:
    for experiment in _EXPERIMENTS:
        top = experiment.name
        yield f"{top}/acqus", _acqus(experiment)
        yield f"{top}/fid", decay(experiment.fid_bytes // 8, experiment.resonances)
        centres = [resonance / 1024 for resonance in experiment.resonances]
        yield f"{top}/pdata/1/1r", lorentzian_lines(_SPECTRUM_POINTS, centres)
        if experiment.with_procs:
            yield f"{top}/pdata/1/procs", _procs(experiment)


def _acqus(experiment: _Experiment) -> bytes:
    """Acquisition parameters as JCAMP-DX 5.0 with Bruker's private labels (`##$`), filled up to the size with one
    comment (`$$`)."""
    lines = [
        "##TITLE= Parameter file, TopSpin 4.1.4",
        "##JCAMPDX= 5.0",
        "##DATATYPE= Parameter Values",
        "##ORIGIN= Bruker BioSpin GmbH",
        "##OWNER= nmr",
        *experiment.more,
        "##$BYTORDA= 0",
        "##$DTYPA= 0",
        f"##$NS= {experiment.scans}",
        f"##$NUC1= <{experiment.nucleus}>",
        f"##$PULPROG= <{experiment.pulse_program}>",
        f"##$SFO1= {experiment.frequency_mhz}",
        f"##$SOLVENT= <{experiment.solvent}>",
        "##$SW_h= 12019.23",
        f"##$TD= {experiment.fid_bytes // 4}",
    ]
    text, end = "\n".join(lines) + "\n", "##END=\n"
    comment = experiment.acqus_bytes - len(text) - len(end) - len("$$ \n")
    return f"{text}$$ {'-' * comment}\n{end}".encode("ascii")


def _procs(experiment: _Experiment) -> bytes:
    lines = [
        "##TITLE= Parameter file, TopSpin 4.1.4",
        "##JCAMPDX= 5.0",
        "##DATATYPE= Parameter Values",
        "##ORIGIN= Bruker BioSpin GmbH",
        "##OWNER= nmr",
        f"##$AXNUC= <{experiment.nucleus}>",
        "##$BYTORDP= 0",
        "##$DTYPP= 0",
        "##$FT_mod= 6",
        "##$LB= 0.3",
        "##$NC_proc= 0",
        "##$OFFSET= 14.7115",
        "##$PHC0= 41.2",
        "##$PHC1= -3.7",
        f"##$SF= {experiment.frequency_mhz}",
        f"##$SI= {_SPECTRUM_POINTS}",
        "##$SW_p= 12019.23",
        "##$WDW= 1",
        "##END=",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")
