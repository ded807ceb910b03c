"""What an S3 server really does with digests and conditions, shown by trying and not by what it promises.

A server may take a wrong digest for a right one, or replace an object in spite of `If-None-Match: *` (Amazon S3 user
guide, "Conditional writes"; RFC 9110 section 13.1.2). So small requests on scratch objects in our reserved folder show
what it does, once a day.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import ClientError

from harvest.storage.base import Fault, StorageError
from harvest.storage.s3.errors import status_of, telling

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

FILE_NAME = "capabilities.json"
"""Where, in the reserved folder, the findings are kept."""
BEST_BEFORE = timedelta(days=1)

SHA256 = "sha256"
MD5 = "md5"

_SCRATCH = b"StreamWeave tries what this server does; this object may be deleted."
_OTHER = b"Bytes that must never arrive under the digest, or at the name, of others."


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a probe has shown.

    `put_digest` and `part_digest` name the digest (SHA256, MD5) whose wrong value the server rejects on a PUT and on
    a part of a multipart upload, or None. Parts have MD5 alone: for sha256, Amazon S3 and SeaweedFS want it declared
    beforehand and repeated on completion, and SeaweedFS does not list it. `conditional_put` and
    `conditional_complete` tell whether `If-None-Match: *` kept an object from being replaced.
    """

    put_digest: str | None
    part_digest: str | None
    conditional_put: bool
    conditional_complete: bool

    @property
    def proves(self) -> bool:
        """Whether the server's taking of the bytes proves that they are the right ones."""
        return self.put_digest is not None and self.part_digest is not None


def digest_argument(algorithm: str | None, content: bytes | bytearray) -> dict[str, Any]:
    """The argument of a boto3 request that tells the digest of `content`; none without an algorithm."""
    if algorithm is None:
        return {}
    # MD5 finds what went wrong on the way; it is no defence against a forger, nor is it meant to be one.
    digest = base64.b64encode(hashlib.new(algorithm, content, usedforsecurity=False).digest()).decode()
    return {"ChecksumSHA256": digest} if algorithm == SHA256 else {"ContentMD5": digest}


def body_arguments(content: bytes | bytearray, digest: str | None) -> dict[str, Any]:
    """The arguments of a boto3 request that sends `content` with its digest."""
    return {"Body": content, **digest_argument(digest, content)}


def not_replacing(honoured: bool) -> dict[str, Any]:
    """The argument that makes a request fail where an object has the name already; none where that is not honoured."""
    return {"IfNoneMatch": "*"} if honoured else {}


def require_etag(answer: Any, path: str) -> str:
    """The ETag of what was stored. Raises StorageError(io) without one: a success that stored nothing."""
    etag = answer.get("ETag")
    if not etag:
        message = (
            "The S3 server answered with success but did not say what it stored (no ETag); it is tried again later."
        )
        raise StorageError(Fault.IO, message, path=path)
    return str(etag)


def to_json(capabilities: Capabilities, endpoint: str, *, probed_at: datetime) -> bytes:
    """The findings as they are kept."""
    return json.dumps(
        {"endpoint": endpoint, "probed_at": probed_at.isoformat(), **asdict(capabilities)}, indent=2
    ).encode()


def from_json(content: bytes | None, endpoint: str, *, now: datetime) -> Capabilities | None:
    """The findings in `content`, or None where they are missing, of another endpoint, too old or not legible."""
    try:
        kept = json.loads(content or b"")
        age = now - datetime.fromisoformat(kept.pop("probed_at"))
        if kept.pop("endpoint") != endpoint or not timedelta() <= age < BEST_BEFORE:
            return None
        return Capabilities(**kept)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class Probe:
    """The trials, each on its own. Use it as a context manager: what they made is removed at the end.

    Every trial raises StorageError where the server cannot be asked (unreachable, denied, …).
    """

    def __init__(self, client: S3Client, parts_client: S3Client, bucket: str, folder: str) -> None:
        """`parts_client` is the one that parts will be sent by."""
        self._client = client
        self._parts_client = parts_client
        self._bucket = bucket
        self._key = f"{folder}probe-{uuid.uuid4().hex}"
        self._made: set[str] = set()
        self._uploads: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clean()

    def run(self) -> Capabilities:
        """Everything that the way of a file needs to know."""
        self.write()
        return Capabilities(
            put_digest=next((name for name in (SHA256, MD5) if self.rejects_wrong_digest(name)), None),
            part_digest=MD5 if self.rejects_wrong_part() else None,
            conditional_put=self.keeps_object_on_put(),
            conditional_complete=self.keeps_object_on_complete(),
        )

    def write(self) -> None:
        """A plain small object. Raises StorageError(io) where it was taken but not stored."""
        with telling():
            require_etag(self._put(self._key, _SCRATCH), "")

    def read_back(self) -> bool:
        """Whether the object of `write` reads as it was written."""
        with telling(), self._client.get_object(Bucket=self._bucket, Key=self._key)["Body"] as body:
            return body.read() == _SCRATCH

    def rejects_wrong_digest(self, algorithm: str) -> bool:
        """Whether a PUT with the right digest is taken, and one with a wrong digest refused and not stored."""
        right, wrong = f"{self._key}-right-{algorithm}", f"{self._key}-wrong-{algorithm}"
        with telling():
            taken = self._accepts(self._put, right, _SCRATCH, **digest_argument(algorithm, _SCRATCH))
            refused = not self._accepts(self._put, wrong, _SCRATCH, **digest_argument(algorithm, _OTHER))
            return taken and refused and self._length(wrong) is None

    def rejects_wrong_part(self) -> bool:
        """Whether a part with the right MD5 is taken, and one with a wrong MD5 refused."""
        with telling():
            key, upload_id = self._start_upload(f"{self._key}-parts")
            taken = self._accepts(self._part, key, upload_id, _SCRATCH, **digest_argument(MD5, _SCRATCH))
            return taken and not self._accepts(self._part, key, upload_id, _SCRATCH, **digest_argument(MD5, _OTHER))

    def keeps_object_on_put(self) -> bool:
        """Whether `If-None-Match: *` lets a PUT make a new object and keeps it from replacing one."""
        key = f"{self._key}-put"
        with telling():
            return (
                self._accepts(self._put, key, _SCRATCH, **not_replacing(True))
                and not self._accepts(self._put, key, _OTHER, **not_replacing(True))
                and self._length(key) == len(_SCRATCH)
            )

    def keeps_object_on_complete(self) -> bool:
        """Whether `If-None-Match: *` keeps the completion of a multipart upload from replacing an object."""
        key = f"{self._key}-complete"
        with telling():
            self._put(key, _SCRATCH)
            return not self._accepts(self._upload, key, _OTHER, **not_replacing(True)) and self._length(key) == len(
                _SCRATCH
            )

    def takes_upload(self) -> bool:
        """Whether a multipart upload makes one whole object."""
        key = f"{self._key}-upload"
        with telling():
            self._upload(key, _SCRATCH)
            return self._length(key) == len(_SCRATCH)

    def clean(self) -> None:
        """Remove all that the trials made. Raises StorageError(denied) where the server does not let us delete."""
        with telling():
            for key, upload_id in tuple(self._uploads):
                self._abort(key, upload_id)
                self._uploads.discard((key, upload_id))
            for key in tuple(self._made):
                self._client.delete_object(Bucket=self._bucket, Key=key)
                self._made.discard(key)

    # ---------------------------------------------------------------------------------------------- requests

    def _accepts(self, request: Any, *arguments: Any, **more: Any) -> bool:
        """Whether the server takes a request. Refused by 400, 409, 412 or 501 is an answer; the rest is an error."""
        try:
            request(*arguments, **more)
        except ClientError as error:
            if status_of(error) in (400, 409, 412, 501):
                return False
            raise
        return True

    def _put(self, key: str, content: bytes, **more: Any) -> Any:
        self._made.add(key)
        return self._client.put_object(Bucket=self._bucket, Key=key, Body=content, **more)

    def _length(self, key: str) -> int | None:
        try:
            return self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise

    def _start_upload(self, key: str) -> tuple[str, str]:
        upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        self._uploads.add((key, upload_id))
        return key, upload_id

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if status_of(error) != 404:  # a server may end an upload with the completion that it refuses
                raise

    def _part(self, key: str, upload_id: str, content: bytes, **more: Any) -> str:
        answer = self._parts_client.upload_part(
            Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=1, Body=content, **more
        )
        return require_etag(answer, "")

    def _upload(self, key: str, content: bytes, **more: Any) -> None:
        self._made.add(key)
        _, upload_id = self._start_upload(key)
        parts: list[CompletedPartTypeDef] = [{"PartNumber": 1, "ETag": self._part(key, upload_id, content)}]
        self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **more
        )
        self._uploads.discard((key, upload_id))
