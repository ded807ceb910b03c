"""Who is measured beside the product: rclone and smbclient, with the same sources and destinations."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from harvest.demo.local_server import find_program
from tests.bench.data import Data
from tests.bench.processes import BenchError, Sample, measured
from tests.bench.stage import ACCESS_KEY, PASSWORD, SECRET_KEY, SOURCE, USER, Destination, Stage

Flags = tuple[str, ...]
CANDIDATES: tuple[Flags, ...] = (
    (),
    ("--transfers=16", "--checkers=16"),
    ("--transfers=8", "--checkers=16"),
    ("--transfers=16", "--checkers=16", "--no-traverse", "--no-check-dest"),
)
"""What is tried for many small files. Not --inplace: then a file that is half there has its final name."""
S3_CANDIDATES: tuple[Flags, ...] = (
    ("--transfers=16", "--checkers=16"),
    ("--transfers=16", "--checkers=16", "--no-traverse", "--no-check-dest", "--s3-no-head"),
    ("--transfers=32", "--checkers=32", "--no-traverse", "--no-check-dest", "--s3-no-head"),
)
LARGE_S3_CANDIDATES: tuple[Flags, ...] = (
    (),
    ("--s3-upload-concurrency=8", "--s3-chunk-size=16M"),
    ("--transfers=8", "--s3-upload-concurrency=2", "--s3-chunk-size=16M", "--s3-no-head"),
)


def program(name: str) -> str:
    """The path of an installed program. Raises BenchError where there is none."""
    found = find_program(name)
    if found is None:
        raise BenchError(f"{name} is not installed; it comes with requirements/test.txt or the system's packages.")
    return found


@cache
def _obscured(password: str) -> str:
    """The password as rclone's configuration wants it."""
    answer = subprocess.run([program("rclone"), "obscure", "-"], input=password, capture_output=True, text=True)
    return answer.stdout.strip()


class Rclone:
    """`rclone`, which reads from Samba (`delayed`: through the proxy). Its remotes stand in the environment."""

    def __init__(self, stage: Stage, *, delayed: bool = False) -> None:
        self._stage = stage
        port = stage.smb_port(delayed=delayed)
        self.environment = {
            "RCLONE_CONFIG": os.devnull,
            **self._smb("BENCHSOURCE", port),
            **self._smb("BENCHARCHIVE", stage.samba.port),
        }

    @staticmethod
    def _smb(remote: str, port: int) -> dict[str, str]:
        told = {"TYPE": "smb", "HOST": "127.0.0.1", "PORT": str(port), "USER": USER, "PASS": _obscured(PASSWORD)}
        return {f"RCLONE_CONFIG_{remote}_{key}": value for key, value in told.items()}

    def _s3(self) -> dict[str, str]:
        told = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": self._stage.weed.endpoint_url,
            "REGION": self._stage.weed.region,
            "ACCESS_KEY_ID": ACCESS_KEY,
            "SECRET_ACCESS_KEY": SECRET_KEY,
            "FORCE_PATH_STYLE": "true",
            "NO_CHECK_BUCKET": "true",
        }
        return {f"RCLONE_CONFIG_BENCHS3_{key}": value for key, value in told.items()}

    def copy(self, data: Data, to: Destination, flags: Flags = (), *, within_seconds: float) -> Sample:
        """Copy all, and look that all is there."""
        sample, _ = self._run("copy", [_source(data), to.rclone, *flags], to, within_seconds)
        if to.found() != (data.files, data.size_bytes):
            raise BenchError(f"rclone has left {to.found()} files and bytes at {to.name}, not {data}.")
        return sample

    def check(self, data: Data, to: Destination, flags: Flags = (), *, within_seconds: float) -> Sample:
        """Compare by reading both sides, and look that it found all the same."""
        known = [flag for flag in flags if flag.startswith(("--transfers", "--checkers"))]
        words = [_source(data), to.rclone, "--download", *known]
        sample, printed = self._run("check", words, to, within_seconds)
        if f"{data.files} matching files" not in printed:
            raise BenchError(f"rclone check does not say that {data.files} files are the same:\n{printed[-2000:]}")
        return sample

    def list(self, data: Data, *, within_seconds: float) -> Sample:
        """List the whole tree."""
        words = [program("rclone"), "lsf", "-R", "--files-only", _source(data)]
        sample, printed = self._measured(words, self.environment, within_seconds)
        if printed.count("\n") != data.files:
            raise BenchError(f"rclone lsf has listed {printed.count(chr(10))} files, not {data.files}.")
        return sample

    def _run(self, what: str, words: Sequence[str], to: Destination, within_seconds: float) -> tuple[Sample, str]:
        environment = {**self.environment, **(self._s3() if to.kind == "s3" else {})}
        return self._measured([program("rclone"), what, *words], environment, within_seconds)

    def _measured(
        self, words: Sequence[str], environment: Mapping[str, str], within_seconds: float
    ) -> tuple[Sample, str]:
        return measured(
            words,
            who="rclone",
            environment=environment,
            within_seconds=within_seconds,
            servers=self._stage.smb_pids,
            cwd=self._stage.memory,
        )

    def trial(self, data: Data, kind: str, candidates: Sequence[Flags], *, within_seconds: float) -> dict[Flags, float]:
        """How many seconds it takes to copy `data` with each of `candidates`: the better of two times each."""
        best = dict.fromkeys(candidates, float("inf"))
        for _ in range(2):
            for flags in candidates:
                with self._stage.destination(kind) as to:
                    sample = self.copy(data, to, flags, within_seconds=within_seconds)
                best[flags] = min(best[flags], sample.seconds)
        return best


def _source(data: Data) -> str:
    return f"benchsource:{SOURCE}/{data.name}"


def mget(stage: Stage, data: Data, to: Path, *, within_seconds: float) -> Sample:
    """`smbclient mget` of all files of one folder, signed, to the folder `to`."""
    words = [program("smbclient"), f"//{stage.samba.host}/{SOURCE}", "--configfile", os.devnull]
    words += ["--port", str(stage.samba.port), "--user", f"{USER}%{PASSWORD}", "--client-protection=sign"]
    told = f'prompt OFF; cd "{data.name}"; mget *'
    sample, _ = measured(
        [*words, "--command", told],
        who="smbclient",
        within_seconds=within_seconds,
        servers=stage.smb_pids,
        cwd=to,
    )
    return sample
