"""Reading an object to its last byte, over connections that may break."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from harvest.storage.base import CHUNK_BYTES, Fault, StorageError
from harvest.storage.s3.errors import FOREIGN, classify, status_of, telling
from harvest.storage.s3.metadata import token_in

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RESUMES = 5
"""How often one read is taken up again where the connection broke."""

_REPLACED = "The object was replaced while it was read."


def read_object(
    client: S3Client, bucket: str, key: str, *, path: str, offset: int = 0, token: str | None = None
) -> Generator[bytes]:
    """The bytes of the object from `offset` on, in pieces of at most CHUNK_BYTES.

    A body that breaks off is taken up again by range, at most `RESUMES` times, and only while the object is the same
    one (by ETag, RFC 9110 section 13.1.1). With `token`, the object must be the one that this attempt wrote.

    Raises StorageError: not_found; changed, where the object was replaced meanwhile; io, where it ends early.
    """
    etag: str | None = None
    position = offset
    for resumes in itertools.count():
        answer = _get(client, bucket, key, path=path, position=position, etag=etag)
        if answer is None:
            return
        with closing(answer["Body"]) as body:
            if token is not None and token_in(answer) != token:
                raise StorageError(Fault.NOT_FOUND, "The object at this name is another attempt's.", path=path)
            if etag is not None and answer.get("ETag") != etag:
                raise StorageError(Fault.CHANGED, _REPLACED, path=path)
            etag = answer.get("ETag")
            end = _end(answer, position, path)
            try:
                while piece := body.read(CHUNK_BYTES):
                    position += len(piece)
                    yield piece
                broken: Exception = exceptions.IncompleteReadError(actual_bytes=position, expected_bytes=end)
            except FOREIGN as error:
                broken = error
        if position == end:
            return
        if resumes == RESUMES:
            raise classify(broken, path=path) from broken


def _get(client: S3Client, bucket: str, key: str, *, path: str, position: int, etag: str | None) -> Any:
    """The answer to one GET from `position` on, or None where the object ends at or before it.

    With `etag` the read is taken up again: the object must be that one, and it must still reach as far.
    """
    arguments: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if position:
        arguments["Range"] = f"bytes={position}-"
    if etag:
        arguments["IfMatch"] = etag
    with telling(path):
        try:
            return client.get_object(**arguments)
        except exceptions.ClientError as error:
            if etag and status_of(error) in (412, 416):
                raise StorageError(Fault.CHANGED, _REPLACED, path=path) from error
            if status_of(error) == 416:
                return None
            raise


def _end(answer: Mapping[str, Any], position: int, path: str) -> int:
    """Where the whole object ends, in bytes, checked against what was asked for."""
    length = answer.get("ContentLength")
    if not position and length is not None:
        return int(length)
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(?:\d+|\*)", answer.get("ContentRange") or "")
    if span is None or int(span[1]) != position:
        message = "The S3 server does not say how long the object is, or does not read from the middle of one (Range)."
        raise StorageError(Fault.IO, message, path=path)
    return int(span[2]) + 1
