"""What `S3Storage.check` tries beside the common dry run: digests, conditions and multipart uploads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harvest.storage.base import Check, Fault, StorageError
from harvest.storage.s3.capabilities import MD5, SHA256, Probe
from harvest.storage.trial import try_out

if TYPE_CHECKING:
    from harvest.storage.s3.storage import S3Storage

_CONNECTING = (
    ("reach the server", frozenset({Fault.UNREACHABLE, Fault.TIMEOUT, Fault.IO})),
    ("speak S3 with it", frozenset({Fault.CONFIGURATION})),
    ("log in", frozenset({Fault.AUTHENTICATION})),
    ("find the bucket", frozenset({Fault.NO_SUCH_SHARE, Fault.NOT_FOUND, Fault.DENIED})),
)


def check_storage(storage: S3Storage, *, write: bool) -> list[Check]:
    """Connect and list as every kind does, then try with scratch objects what the way of a file asks of S3.

    `storage` must be closed, and is closed again afterwards. What was found out is not kept, and nothing is left on
    the server.
    """
    findings = try_out(storage, _CONNECTING, write=False)
    if write and all(finding.ok for finding in findings):
        with storage:
            findings += _check_writing(storage.probe())
    return findings


def _check_writing(probe: Probe) -> list[Check]:
    findings = [_attempt("write a file", probe, _write)]
    if findings[0].ok:
        findings += [
            _attempt("read it back", probe, _read_back),
            _attempt("refuse damaged bytes", probe, _refuse_damaged),
            _attempt("never replace a file", probe, _never_replace),
            _attempt("write a large file in parts", probe, _upload),
        ]
    return [*findings, _attempt("delete it", probe, _delete)]


def _attempt(name: str, probe: Probe, step: Callable[[Probe], tuple[bool, str]]) -> Check:
    try:
        return Check(name, *step(probe))
    except StorageError as error:
        return Check(name, False, str(error))


def _write(probe: Probe) -> tuple[bool, str]:
    probe.write()
    return True, "It worked."


def _read_back(probe: Probe) -> tuple[bool, str]:
    if probe.read_back():
        return True, "It reads as it was written."
    return False, "It does not read as it was written: the server damages what it stores. Use another one."


def _refuse_damaged(probe: Probe) -> tuple[bool, str]:
    put_digest = next((name for name in (SHA256, MD5) if probe.rejects_wrong_digest(name)), None)
    if put_digest and probe.rejects_wrong_part():
        return True, f"The server rejects a wrong digest ({put_digest}, {MD5} for parts); that verifies each file."
    return True, "The server takes wrong digests; so each file is read back, which takes longer."


def _never_replace(probe: Probe) -> tuple[bool, str]:
    if probe.keeps_object_on_put() and probe.keeps_object_on_complete():
        return True, "The server itself refuses to replace an object."
    return True, (
        "The server ignores If-None-Match; so StreamWeave looks whether a name is free before it writes. "
        "Let no other program write below the base path."
    )


def _upload(probe: Probe) -> tuple[bool, str]:
    if probe.takes_upload():
        return True, "It worked."
    return False, "The server completed the upload to something else: it cannot take files over 8 MiB."


def _delete(probe: Probe) -> tuple[bool, str]:
    probe.clean()
    return True, "What the check wrote is deleted."
