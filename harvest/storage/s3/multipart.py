"""A file of any size as a multipart upload, which nobody sees until it is completed.

Amazon S3 user guide, "Uploading and copying objects using multipart upload"; limits under "Multipart upload limits".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Self

from harvest.storage.base import Fault, StorageError
from harvest.storage.s3.capabilities import body_arguments, not_replacing, require_etag
from harvest.storage.s3.errors import telling
from harvest.storage.s3.many import InThread, Underway

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

FIRST_PART_BYTES = 8 << 20
"""The size of the first parts; a file no larger than one needs no upload in parts."""
MOST_PARTS = 10_000
_PARTS_OF_A_SIZE = 1_000
_MOST_DOUBLINGS = 5

_TOO_LARGE = "The file is larger than 1.46 TiB, the most that goes to S3 in parts: use another storage for it."


def part_bytes(number: int) -> int:
    """The size of the part of that number, counted from 1, in bytes.

    8 MiB for the first thousand parts, then twice as much for each further thousand, up to 256 MiB. So a file whose
    size nobody knows beforehand may grow to 1,528,000 MiB (1.46 TiB) within 10,000 parts. While a part is gathered,
    `many.MOST_BYTES` are under way, or one part. (Servers that want all parts but the last of one size, as Cloudflare
    R2, take 7.8 GiB.)
    """
    return FIRST_PART_BYTES << min((number - 1) // _PARTS_OF_A_SIZE, _MOST_DOUBLINGS)


def in_parts(chunks: Iterable[bytes | memoryview]) -> Iterator[bytearray]:
    """`chunks` cut anew into parts of `part_bytes`; the last one may be shorter, and none is empty."""
    number, part, filled = 1, bytearray(), 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            taken = rest[: part_bytes(number) - filled]
            if number == 1:
                part += taken  # grows as it must: most files end within it
            else:
                memoryview(part)[filled : filled + len(taken)] = taken
            filled += len(taken)
            rest = rest[len(taken) :]
            if filled == part_bytes(number):
                yield part
                number, filled = number + 1, 0
                part = bytearray(part_bytes(number))
    if filled:
        del part[filled:]
        yield part


class MultipartUpload:
    """One upload, begun and not completed. `path` is what errors name."""

    def __init__(self, client: S3Client, bucket: str, key: str, upload_id: str, *, path: str) -> None:
        self.upload_id = upload_id
        self._client = client
        self._bucket = bucket
        self._key = key
        self._path = path

    @classmethod
    def begin(cls, client: S3Client, bucket: str, key: str, *, path: str, metadata: Mapping[str, str]) -> Self:
        """A new upload whose object will carry `metadata`."""
        with telling(path):
            answer = client.create_multipart_upload(Bucket=bucket, Key=key, Metadata=metadata)
        return cls(client, bucket, key, answer["UploadId"], path=path)

    def send(self, parts: Iterable[bytearray], *, client: S3Client, digest: str | None, executor: Executor) -> int:
        """Send `parts` by `client`, several at once, each with its digest, and return how many bytes they were.

        Whatever is raised, nothing is under way any more then.
        """
        size_bytes = 0
        under_way: Underway[int, None] = Underway()
        try:
            for number, part in enumerate(parts, 1):
                if number > MOST_PARTS:
                    raise StorageError(Fault.IO, _TOO_LARGE, path=self._path, permanent=True)
                while not under_way.has_room(len(part)):
                    under_way.take()
                under_way.add(number, InThread(executor, partial(self._send, client, number, part, digest)), len(part))
                size_bytes += len(part)
            while under_way:
                under_way.take()
        finally:
            tuple(under_way.give_up())
        return size_bytes

    def _send(self, client: S3Client, number: int, part: bytearray, digest: str | None) -> None:
        with telling(self._path):
            answer = client.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self.upload_id,
                PartNumber=number,
                **body_arguments(part, digest),
            )
        require_etag(answer, self._path)

    def whole_parts(self, size_bytes: int) -> list[CompletedPartTypeDef]:
        """The parts as the server has them. Raises StorageError(not_found) where they are not `size_bytes` in all."""
        parts: list[CompletedPartTypeDef] = []
        present_bytes = 0
        with telling(self._path):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self._bucket, Key=self._key, UploadId=self.upload_id
            )
            for page in pages:
                for part in page.get("Parts", ()):
                    parts.append({"PartNumber": part["PartNumber"], "ETag": part["ETag"]})
                    present_bytes += part["Size"]
        if present_bytes != size_bytes or [part["PartNumber"] for part in parts] != list(range(1, len(parts) + 1)):
            message = (
                f"The multipart upload has {present_bytes} bytes of {size_bytes}: parts are missing, send it anew."
            )
            raise StorageError(Fault.NOT_FOUND, message, path=self._path)
        return parts

    def complete(self, parts: Sequence[CompletedPartTypeDef], *, conditional: bool) -> None:
        """Make the object of `parts`; with `conditional`, only where there is none (StorageError exists)."""
        with telling(self._path):
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self.upload_id,
                MultipartUpload={"Parts": parts},
                **not_replacing(conditional),
            )

    def abort(self) -> None:
        """Give the upload up; one that is gone already is fine."""
        try:
            with telling(self._path):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self.upload_id)
        except StorageError as error:
            if error.fault is not Fault.NOT_FOUND:
                raise
