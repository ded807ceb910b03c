"""The S3 kind of storage.

An object appears whole or not at all, under its final name, and cannot be renamed. So a small file is hashed in
memory and sent by one conditional PUT, which publishes it; a larger one is a multipart upload that nobody sees until
its conditional completion. Every object carries the token of the attempt that wrote it, so that a lost answer, or a
later attempt, can tell whose it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, unquote

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError

from harvest.storage import names
from harvest.storage.base import RESERVED, Check, Entry, Fault, Proof, Staged, Storage, StorageError, Unreadable
from harvest.storage.s3 import capabilities as probing
from harvest.storage.s3.capabilities import MD5, Capabilities, Probe, body_arguments, not_replacing, require_etag
from harvest.storage.s3.checking import check_storage
from harvest.storage.s3.claiming import claim
from harvest.storage.s3.errors import NO_S3_SERVER, status_of, telling
from harvest.storage.s3.multipart import MultipartUpload, in_parts
from harvest.storage.s3.reading import TOKEN_METADATA, read_object, token_in

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

_NOTES = "uploads"
"""The folder in our reserved one with a note for each upload that is not completed: its name is the token."""

_CLAIMS = "claims"
"""The folder beside it with the claims to names (see `claiming`)."""

_CLIENT_CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 3},
    # We send our own digests, those that a probe has shown to be checked; servers choke on botocore's defaults.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # unknown to the stubs
)


class S3Storage(Storage):
    """Objects below a key prefix (the base path) of one bucket.

    Staged bytes are named "object:<token>" where they were published at once, "upload:<token>:<upload id>:<path>"
    where they are a multipart upload that is not completed yet.

    A server that ignores `If-None-Match` is asked by HEAD before each write instead; two writers of the same name at
    the same moment could then replace one another, so each name must be reserved by one row beforehand.
    """

    kind = "s3"
    config_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["bucket", "access_key_id", "secret_access_key"],
        "properties": {
            "bucket": {"type": "string", "minLength": 1, "description": "Name of the bucket; it must exist."},
            "region": {"type": "string", "minLength": 1, "default": "us-east-1", "description": "Its region."},
            "endpoint_url": {
                "type": ["string", "null"],
                "pattern": "^https?://[^/]+",
                "default": None,
                "description": "Address of the server, e.g. https://s3.example.org:9000; null for Amazon S3.",
            },
            "access_key_id": {"type": "string", "minLength": 1, "description": "Identifier of the access key."},
            "secret_access_key": {"type": "string", "minLength": 1, "description": "Secret of the access key."},
        },
    }
    secret_fields = frozenset({"secret_access_key"})

    def __init__(
        self,
        base_path: str,
        *,
        bucket: str,
        access_key_id: str,
        secret_access_key: str,
        region: str = "us-east-1",
        endpoint_url: str | None = None,
    ) -> None:
        prefix = base_path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = bucket
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._region = region
        self._endpoint_url = endpoint_url
        self._connected: S3Client | None = None
        self._known: Capabilities | None = None

    @classmethod
    def from_config(cls, base_path: str, config: Mapping[str, Any]) -> Self:
        return cls(base_path, **config)

    def connect(self) -> None:
        with telling():
            self._connected = self._new_client()
            try:
                # GET rather than HEAD: its refusal has a body, which tells a wrong key from a missing right.
                answer = self._connected.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
                if "IsTruncated" not in answer:  # not a listing, but XML all the same
                    raise StorageError(Fault.UNREACHABLE, NO_S3_SERVER)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        client, self._connected = self._connected, None
        if client is not None:
            client.close()

    # ------------------------------------------------------------------------------------------------- looking

    def walk(
        self, top: str = "", *, recursive: bool = True, advanced: Callable[[], None] = lambda: None
    ) -> Iterator[Entry | Unreadable]:
        start = self._key(top) + "/" if top else self._prefix
        for found in self._listing(start, delimiter="" if recursive else "/"):
            advanced()
            path, size_bytes = found["Key"].removeprefix(self._prefix), found["Size"]
            if path.split("/", 1)[0] == RESERVED or (path.endswith("/") and not size_bytes):
                continue  # ours, or the mark that some tools leave for an empty folder
            try:
                self._key(path)
            except StorageError as error:
                yield Unreadable(path, error)
            else:
                yield Entry(path, size_bytes, _whole_seconds(found["LastModified"]))

    def stat(self, path: str) -> Entry:
        answer = self._head(path)
        if answer is None:
            raise StorageError(Fault.NOT_FOUND, "There is no such object.", path=path)
        return Entry(path, answer["ContentLength"], _whole_seconds(answer["LastModified"]))

    def token_of(self, path: str) -> str | None:
        """The token of the attempt that wrote the object at `path`; None where there is no object, or no token."""
        answer = self._head(path)
        return None if answer is None else token_in(answer)

    def read(self, path: str, *, offset: int = 0) -> Generator[bytes]:
        return read_object(self._client, self._bucket, self._key(path), path=path, offset=offset)

    # ------------------------------------------------------------------------------------------------- writing

    def stored_path(self, path: str) -> str:
        return names.encode(path, names.S3, base_path=self._prefix.rstrip("/"))

    def write(self, path: str, token: str, chunks: Iterable[bytes]) -> Staged:
        self._key(path)
        names.check_token(token)
        parts = in_parts(chunks)
        first, second = next(parts, bytearray()), next(parts, None)
        if second is None:
            return self._write_small(path, token, first)
        return self._write_large(path, token, chain((first, second), parts))

    def make_durable(self, staged: Sequence[Staged]) -> None:
        """Nothing to do: an S3 server answers a PUT, a part or a completion only when it has stored it."""

    def read_back(self, staged: Staged) -> Iterator[bytes]:
        """The object at the final name, which must be this attempt's own unless it was adopted (an empty ref). An
        upload is not readable before it is published: not_found."""
        token = _parse_ref(staged.ref)[0] if staged.ref else None
        return read_object(self._client, self._bucket, self._key(staged.path), path=staged.path, token=token)

    def publish(self, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
        for item in staged:
            try:
                if not item.published:
                    self._complete(item)
            except StorageError as error:
                yield error
            else:
                yield None

    def discard(self, ref: str, path: str) -> None:
        """Abort the upload and, where `path` is told, delete the object there if it carries this attempt's token.

        So what this attempt has published is taken back, too: tell the path only while nobody else can have adopted
        the object, that is, while holding the lease of the row that reserved it. Bytes that were there already when
        the attempt came, and were adopted, have an empty ref: nothing is staged, and nothing is removed.
        """
        if not ref:
            return
        token, upload_id, staged_path = _parse_ref(ref)
        if upload_id:
            self._upload(staged_path, upload_id).abort()
            self.delete(_note_of(token))
        if path and self.token_of(path) == token:
            self.delete(path)

    def delete(self, path: str) -> None:
        with telling(path):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(path))

    # -------------------------------------------------------------------------------------- our own small files

    def read_reserved(self, name: str) -> bytes | None:
        key = self._reserved_key(name)
        try:
            return b"".join(read_object(self._client, self._bucket, key, path=f"{RESERVED}/{name}"))
        except StorageError as error:
            if error.fault is Fault.NOT_FOUND:
                return None
            raise

    def write_reserved(self, name: str, content: bytes) -> None:
        path = f"{RESERVED}/{name}"
        with telling(path):
            answer = self._client.put_object(
                Bucket=self._bucket, Key=self._reserved_key(name), **body_arguments(content, MD5)
            )
        require_etag(answer, path)

    # ------------------------------------------------------------------------------------------------- health

    def free_bytes(self) -> int | None:
        return None

    def leftovers(self) -> Iterator[tuple[str, str]]:
        """The uploads that are noted in our reserved folder; a listing of uploads would not tell their tokens.

        One that was completed, and whose note a crash left behind, is among them: discarding it removes the note.
        """
        for found in self._listing(self._reserved_key(f"{_NOTES}/")):
            token = found["Key"].rpartition("/")[2]
            if (ref := self.read_reserved(f"{_NOTES}/{token}")) is not None:
                yield ref.decode(), token

    def check(self, *, write: bool = True) -> list[Check]:
        # A connection of its own, so that nothing is taken for granted that this one has learnt.
        fresh = copy(self)
        fresh._connected = fresh._known = None
        return check_storage(fresh, write=write)

    def probe(self) -> Probe:
        """Trials of what the server does, on scratch objects in our reserved folder."""
        return Probe(self._client, self._bucket, self._reserved_key(""))

    @property
    def capabilities(self) -> Capabilities:
        """What the server does with digests and conditions, as found at most a day ago."""
        if self._known is None:
            endpoint = f"{self._endpoint_url or self._region}/{self._bucket}"
            now = datetime.now(UTC)
            self._known = probing.from_json(self.read_reserved(probing.FILE_NAME), endpoint, now=now)
            if self._known is None:
                with self.probe() as probe:
                    self._known = probe.run()
                self.write_reserved(probing.FILE_NAME, probing.to_json(self._known, endpoint, probed_at=now))
        return self._known

    # ---------------------------------------------------------------------------------------------- internals

    @property
    def _client(self) -> S3Client:
        if self._connected is None:
            raise ValueError("This storage is not connected: use it as a context manager.")
        return self._connected

    def _new_client(self) -> S3Client:
        # A session of its own: sessions may be shared neither between threads nor across a fork.
        session = Session(
            aws_access_key_id=self._access_key_id,
            aws_secret_access_key=self._secret_access_key,
            region_name=self._region,
        )
        config = _CLIENT_CONFIG
        if self._endpoint_url:
            config = config.merge(Config(s3={"addressing_style": "path"}))
        try:
            return session.client("s3", endpoint_url=self._endpoint_url, config=config)
        except ValueError as error:
            message = f"endpoint_url or region of the storage's connection is not valid: {error}."
            raise StorageError(Fault.CONFIGURATION, message) from error

    def _key(self, path: str) -> str:
        # Some servers take a backslash for a slash, and resolve or refuse "", "." and "..": such keys are not used.
        names.split(path, separators="\\")
        return self._prefix + path

    def _listing(self, start: str, *, delimiter: str = "") -> Iterator[ObjectTypeDef]:
        """All objects whose keys begin with `start` (and have no `delimiter` after it), a page at a time."""
        lister = self._client.get_paginator("list_objects_v2")
        pages = iter(lister.paginate(Bucket=self._bucket, Prefix=start, Delimiter=delimiter))
        while True:
            with telling():
                page = next(pages, None)
            if page is None:
                return
            yield from page.get("Contents", ())

    def _reserved_key(self, name: str) -> str:
        return f"{self._prefix}{RESERVED}/{name}"

    def _head(self, path: str) -> Any:
        """The answer to HEAD, or None where there is no object."""
        with telling(path):
            try:
                return self._client.head_object(Bucket=self._bucket, Key=self._key(path))
            except ClientError as error:
                if status_of(error) == 404:
                    return None
                raise

    def _refuse_taken(self, path: str) -> None:
        if self._head(path) is not None:
            raise StorageError(Fault.EXISTS, "The name is taken already; nothing was replaced.", path=path)

    def _write_small(self, path: str, token: str, content: bytearray) -> Staged:
        able = self.capabilities
        if not able.conditional_put:
            self._refuse_taken(path)
        try:
            with telling(path):
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._key(path),
                    Metadata={TOKEN_METADATA: token},
                    **body_arguments(content, able.put_digest),
                    **not_replacing(able.conditional_put),
                )
            require_etag(answer, path)
        except StorageError as error:
            self._explain_taken(error, path, token)
        return Staged(f"object:{token}", path, len(content), _proof(able), published=True)

    def _explain_taken(self, error: StorageError, path: str, token: str) -> None:
        """Return where the object that is in the way is this attempt's own: the first answer was lost, and boto3 sent
        the request again. Raise `error` otherwise."""
        if error.fault not in (Fault.EXISTS, Fault.NOT_FOUND) or self.token_of(path) != token:
            raise error

    def _write_large(self, path: str, token: str, parts: Iterable[bytearray]) -> Staged:
        able = self.capabilities
        upload = MultipartUpload.begin(self._client, self._bucket, self._key(path), path=path, token=token)
        ref = _upload_ref(token, upload.upload_id, path)
        try:
            # Before the first part: an upload that nobody has noted holds no bytes.
            self.write_reserved(f"{_NOTES}/{token}", ref.encode())
            size_bytes = upload.send(parts, digest=able.part_digest)
        except BaseException as error:
            try:
                self.discard(ref, "")
            except StorageError as left:
                error.add_note(f"The multipart upload {upload.upload_id} could not be aborted and stays behind: {left}")
            raise
        return Staged(ref, path, size_bytes, _proof(able))

    def _upload(self, path: str, upload_id: str) -> MultipartUpload:
        return MultipartUpload(self._client, self._bucket, self._key(path), upload_id, path=path)

    def _complete(self, staged: Staged) -> None:
        token, upload_id, _ = _parse_ref(staged.ref)
        conditional = self.capabilities.conditional_complete
        upload = self._upload(staged.path, upload_id)
        with self._claim(staged.path, token):
            try:
                parts = upload.whole_parts(staged.size_bytes)
                if not conditional:
                    self._refuse_taken(staged.path)
                upload.complete(parts, conditional=conditional)
            except StorageError as error:
                self._explain_taken(error, staged.path, token)
            self._look_at_completed(staged, token)
        self.delete(_note_of(token))

    def _claim(self, path: str, token: str) -> AbstractContextManager[None]:
        if not self.capabilities.conditional_put:
            return nullcontext()  # a claim that may be replaced claims nothing
        key = self._reserved_key(f"{_CLAIMS}/{hashlib.sha256(path.encode()).hexdigest()}")
        return claim(self._client, self._bucket, key, token=token, path=path)

    def _look_at_completed(self, staged: Staged, token: str) -> None:
        """Return where the object is what was staged. Raises StorageError(exists, not_found) where it is not."""
        answer = self._head(staged.path)
        if answer is not None and token_in(answer) != token:
            raise StorageError(Fault.EXISTS, "Another attempt took the name at the same moment.", path=staged.path)
        if answer is None or answer["ContentLength"] != staged.size_bytes:
            self.discard(staged.ref, staged.path)
            message = "The server completed the upload to something else than was sent; it is taken back, send it anew."
            raise StorageError(Fault.NOT_FOUND, message, path=staged.path)


def _note_of(token: str) -> str:
    return f"{RESERVED}/{_NOTES}/{token}"


def _proof(able: Capabilities) -> Proof:
    return Proof.BY_STORE if able.proves else Proof.READ_BACK_PUBLISHED


def _whole_seconds(moment: datetime) -> datetime:
    """HEAD tells whole seconds alone, a listing sometimes more: the same object must have the same time in both."""
    return moment.astimezone(UTC).replace(microsecond=0)


def _upload_ref(token: str, upload_id: str, path: str) -> str:
    return f"upload:{token}:{quote(upload_id, safe='')}:{path}"


def _parse_ref(ref: str) -> tuple[str, str, str]:
    """The token, the upload id (empty for an object) and the path (likewise) in the name of staged bytes."""
    match ref.split(":", 3):
        case ["object", token]:
            return token, "", ""
        case ["upload", token, upload_id, path]:
            return token, unquote(upload_id), path
    raise ValueError(f"{ref!r} does not name staged bytes of an S3 storage.")
