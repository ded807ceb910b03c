"""Files brought into a bucket: small ones as an object each, large ones as uploads.

Staged bytes are named "object:<token>" where they were published at once, "upload:<token>:<upload id>:<path>" where
they are a multipart upload that is not completed yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import quote, unquote

from harvest.storage import names
from harvest.storage.base import RESERVED, Fault, Incoming, Proof, Staged, StorageError, WithdrawnError
from harvest.storage.s3.bucket import Bucket
from harvest.storage.s3.capabilities import Capabilities, digest_argument, not_replacing, require_etag
from harvest.storage.s3.claiming import claim
from harvest.storage.s3.errors import telling
from harvest.storage.s3.kept import Exchange
from harvest.storage.s3.many import InThread, Known, Pending, Underway
from harvest.storage.s3.metadata import metadata, token_in
from harvest.storage.s3.multipart import MultipartUpload, in_parts

NOTES = "uploads"
"""The folder in our reserved one with a note for each upload that is not completed: its name is the token."""
_CLAIMS = "claims"
"""The folder beside it with the claims to names (see `claiming`)."""

SENT_AT_ONCE_BYTES = 256 << 10
"""Up to this size an object is sent without waiting for the answer to the one before; what is larger would wait for
the network while it is sent, so that threads do it."""

Outcome = Staged | StorageError | WithdrawnError
_Place = tuple[str, str]
"""The ref and the path by which something can be taken back; an empty ref where there is nothing."""


class Writer:
    """Writes as the server's `Capabilities` allow."""

    def __init__(self, bucket: Bucket, able: Capabilities) -> None:
        self._bucket = bucket
        self._able = able
        self._proof = Proof.BY_STORE if able.proves else Proof.READ_BACK_PUBLISHED

    def write(
        self, path: str, token: str, chunks: Iterable[bytes | memoryview], modified_at: datetime | None
    ) -> Staged:
        """See `Storage.write`."""
        small, large = self._cut(path, token, chunks)
        if large is None:
            return self._write_small(path, token, small, self._arguments(token, small, modified_at))
        return self._write_large(path, token, large, modified_at)

    def write_many(self, files: Iterable[Incoming]) -> Generator[Outcome]:
        """See `Storage.write_many`. A large file is written by itself, while small ones before it are under way."""
        under_way: Underway[_Place, Outcome] = Underway()
        beginning: _Place = "", ""
        try:
            for file in files:
                ref, size_bytes, begin = self._prepare(file)
                beginning = ref, file.path  # from now on there may be something to take back
                while not under_way.has_room(size_bytes):
                    yield _next_outcome(under_way)
                under_way.add(beginning, begin(), size_bytes)
                beginning = "", ""
            while under_way:
                yield _next_outcome(under_way)
        except BaseException as error:
            self._take_back([beginning, *under_way.give_up()], error)
            raise

    def publish(self, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
        """See `Storage.publish`."""
        under_way: Underway[Staged, StorageError | None] = Underway()
        try:
            for item in staged:
                while not under_way.has_room(0):
                    yield under_way.take()
                pending = (
                    Known(None) if item.published else InThread(self._bucket.executor, partial(self._publish, item))
                )
                under_way.add(item, pending)
            while under_way:
                yield under_way.take()
        finally:
            tuple(under_way.give_up())

    def claim(self, path: str, token: str) -> AbstractContextManager[None]:
        """The right to complete an upload to `path`, where the server lets us have one."""
        if not self._able.conditional_put:
            return nullcontext()  # a claim that may be replaced claims nothing
        bucket = self._bucket
        key = bucket.reserved_key(f"{_CLAIMS}/{hashlib.sha256(path.encode()).hexdigest()}")
        return claim(bucket.client, bucket.name, key, token=token, path=path)

    # ---------------------------------------------------------------------------------------------- many files

    def _cut(
        self, path: str, token: str, chunks: Iterable[bytes | memoryview]
    ) -> tuple[bytearray, Iterable[bytearray] | None]:
        """The bytes of a small file and None, or the first bytes of a large one and all its parts."""
        self._bucket.key(path)
        names.check_token(token)
        parts = in_parts(chunks)
        first, second = next(parts, bytearray()), next(parts, None)
        return first, None if second is None else chain((first, second), parts)

    def _prepare(self, file: Incoming) -> tuple[str, int, Callable[[], Pending[Outcome]]]:
        """Consume the chunks of `file`: its ref, how many bytes are to be held, and what begins to send them."""
        try:
            small, large = self._cut(file.path, file.token, file.chunks)
            if large is None:
                return f"object:{file.token}", len(small), partial(self._begin_small, file, small)
            staged = self._write_large(file.path, file.token, large, file.modified_at)
        except (StorageError, WithdrawnError) as error:
            if isinstance(error, StorageError) and error.whole_storage:
                raise
            return "", 0, partial(Known, error)
        return staged.ref, 0, partial(Known, staged)

    def _begin_small(self, file: Incoming, content: bytearray) -> Pending[Staged]:
        arguments = self._arguments(file.token, content, file.modified_at)
        by_boto3 = partial(self._write_small, file.path, file.token, content, arguments)
        signed = self._bucket.signed
        # A server that ignores conditions must be asked first whether the name is free.
        if signed is None or not self._able.conditional_put or len(content) > SENT_AT_ONCE_BYTES:
            return InThread(self._bucket.executor, by_boto3)
        exchange = signed.put(self._bucket.key(file.path), content, arguments)
        return _Put(exchange, self._object(file.path, file.token, content), by_boto3)

    def _take_back(self, places: Sequence[_Place], error: BaseException) -> None:
        """Remove what nobody was told of; `error` is why, and gets a note of what stays."""
        for ref, path in places:
            try:
                discard(self._bucket, ref, path)
            except StorageError as left:
                error.add_note(f"What was written to {path!r} could not be taken back and stays: {left}")
                if left.whole_storage:
                    return

    # --------------------------------------------------------------------------------------------- small files

    def _arguments(self, token: str, content: bytearray, modified_at: datetime | None) -> dict[str, Any]:
        """Those of boto3's put_object beside bucket, key and body."""
        return {
            "Metadata": metadata(token, modified_at),
            **digest_argument(self._able.put_digest, content),
            **not_replacing(self._able.conditional_put),
        }

    def _object(self, path: str, token: str, content: bytearray) -> Staged:
        return Staged(f"object:{token}", path, len(content), self._proof, published=True)

    def _write_small(self, path: str, token: str, content: bytearray, arguments: dict[str, Any]) -> Staged:
        bucket = self._bucket
        try:
            if not self._able.conditional_put:
                bucket.refuse_taken(path)
            with telling(path):
                answer = bucket.client.put_object(
                    Bucket=bucket.name, Key=bucket.key(path), **{"Body": content, **arguments}
                )
            require_etag(answer, path)
        except StorageError as error:
            bucket.explain_taken(error, path, token)
        return self._object(path, token, content)

    # --------------------------------------------------------------------------------------------- large files

    def _write_large(self, path: str, token: str, parts: Iterable[bytearray], modified_at: datetime | None) -> Staged:
        bucket = self._bucket
        upload = MultipartUpload.begin(
            bucket.client, bucket.name, bucket.key(path), path=path, metadata=metadata(token, modified_at)
        )
        ref = f"upload:{token}:{quote(upload.upload_id, safe='')}:{path}"
        try:
            # Before the first part: an upload that nobody has noted holds no bytes.
            bucket.write_reserved(f"{NOTES}/{token}", ref.encode())
            digest = self._able.part_digest
            client = bucket.parts_client if digest else bucket.client
            size_bytes = upload.send(parts, client=client, digest=digest, executor=bucket.executor)
        except BaseException as error:
            try:
                discard(bucket, ref, "")
            except StorageError as left:
                error.add_note(f"The multipart upload {upload.upload_id} could not be aborted and stays behind: {left}")
            raise
        return Staged(ref, path, size_bytes, self._proof)

    def _publish(self, staged: Staged) -> StorageError | None:
        try:
            self._complete(staged)
        except StorageError as error:
            return error
        return None

    def _complete(self, staged: Staged) -> None:
        token, upload_id, _ = parse_ref(staged.ref)
        upload = _upload(self._bucket, staged.path, upload_id)
        with self.claim(staged.path, token):
            try:
                parts = upload.whole_parts(staged.size_bytes)
                if not self._able.conditional_complete:
                    self._bucket.refuse_taken(staged.path)
                upload.complete(parts, conditional=self._able.conditional_complete)
            except StorageError as error:
                self._bucket.explain_taken(error, staged.path, token)
            self._look_at_completed(staged, token)
        self._bucket.delete(_note_of(token))

    def _look_at_completed(self, staged: Staged, token: str) -> None:
        """Return where the object is what was staged. Raises StorageError(exists, not_found) where it is not."""
        answer = self._bucket.head(staged.path)
        if answer is not None and token_in(answer) != token:
            raise StorageError(Fault.EXISTS, "Another attempt took the name at the same moment.", path=staged.path)
        if answer is None or answer["ContentLength"] != staged.size_bytes:
            discard(self._bucket, staged.ref, staged.path)
            message = "The server completed the upload to something else than was sent; it is taken back, send it anew."
            raise StorageError(Fault.NOT_FOUND, message, path=staged.path)


class _Put:
    """An object that was sent; what the server did not plainly take is sent again `by_boto3`."""

    def __init__(self, exchange: Exchange | None, staged: Staged, by_boto3: Callable[[], Staged]) -> None:
        self._exchange, self._staged, self._by_boto3 = exchange, staged, by_boto3

    def result(self) -> Staged:
        answer = self._exchange.answer() if self._exchange else None
        if answer is not None and answer.status == 200 and answer.headers.get("etag"):
            return self._staged
        return self._by_boto3()

    def give_up(self) -> bool:
        if self._exchange:
            self._exchange.answer()  # after it nothing can happen any more
        return True


def _next_outcome(under_way: Underway[_Place, Outcome]) -> Outcome:
    try:
        return under_way.take()
    except StorageError as error:
        if error.whole_storage:
            raise
        return error


def discard(bucket: Bucket, ref: str, path: str) -> None:
    """See `S3Storage.discard`."""
    if not ref:
        return
    token, upload_id, staged_path = parse_ref(ref)
    if upload_id:
        _upload(bucket, staged_path, upload_id).abort()
        bucket.delete(_note_of(token))
    if path and bucket.token_of(path) == token:
        bucket.delete(path)


def token_of_ref(ref: str) -> str | None:
    """Whose the object must be; None for one that was there already and was adopted (an empty ref)."""
    return parse_ref(ref)[0] if ref else None


def parse_ref(ref: str) -> tuple[str, str, str]:
    """The token, the upload id (empty for an object) and the path (likewise) in the name of staged bytes."""
    match ref.split(":", 3):
        case ["object", token]:
            return token, "", ""
        case ["upload", token, upload_id, path]:
            return token, unquote(upload_id), path
    raise ValueError(f"{ref!r} does not name staged bytes of an S3 storage.")


def _upload(bucket: Bucket, path: str, upload_id: str) -> MultipartUpload:
    return MultipartUpload(bucket.client, bucket.name, bucket.key(path), upload_id, path=path)


def _note_of(token: str) -> str:
    return f"{RESERVED}/{NOTES}/{token}"
