"""The S3 kind of storage.

An object appears whole or not at all, under its final name, and cannot be renamed. So a small file is hashed in
memory and sent by one conditional PUT, which publishes it; a larger one is a multipart upload that nobody sees until
its conditional completion. Every object carries the token of the attempt that wrote it, so that a lost answer, or a
later attempt, can tell whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from boto3.session import Session
from botocore.config import Config
from botocore.credentials import Credentials

from harvest.storage import names
from harvest.storage.base import (
    RESERVED,
    Check,
    Entry,
    Fault,
    Incoming,
    Reading,
    Staged,
    Storage,
    StorageError,
    Unreadable,
    WithdrawnError,
)
from harvest.storage.s3 import capabilities as probing
from harvest.storage.s3.bucket import THREADS, Bucket
from harvest.storage.s3.capabilities import Capabilities, Probe
from harvest.storage.s3.checking import check_storage
from harvest.storage.s3.fetching import Wanted, read_ahead, whole_seconds
from harvest.storage.s3.writing import NOTES, Writer, discard, token_of_ref

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CLIENT_CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=THREADS + 1,  # one for the thread that the storage is used in
    # We send our own digests, those that a probe has shown to be checked; servers choke on botocore's defaults.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # unknown to the stubs
)


class S3Storage(Storage):
    """Objects below a key prefix (the base path) of one bucket.

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
    publishes_at_once: ClassVar[bool] = True
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
        self._bucket_name = bucket
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._region = region
        self._endpoint_url = endpoint_url
        self._connected: Bucket | None = None
        self._known: Capabilities | None = None

    @classmethod
    def from_config(cls, base_path: str, config: Mapping[str, Any]) -> Self:
        return cls(base_path, **config)

    def connect(self) -> None:
        credentials = Credentials(self._access_key_id, self._secret_access_key)
        self._connected = Bucket(self._new_client, self._bucket_name, self._prefix, credentials)

    def close(self) -> None:
        bucket, self._connected = self._connected, None
        if bucket is not None:
            bucket.close()

    # ------------------------------------------------------------------------------------------------- looking

    def walk(
        self, top: str = "", *, recursive: bool = True, advanced: Callable[[], None] = lambda: None
    ) -> Iterator[Entry | Unreadable]:
        bucket = self._bucket
        start = bucket.key(top) + "/" if top else self._prefix
        for found in bucket.listing(start, delimiter="" if recursive else "/"):
            advanced()
            path, size_bytes = found["Key"].removeprefix(self._prefix), found["Size"]
            if path.split("/", 1)[0] == RESERVED or (path.endswith("/") and not size_bytes):
                continue  # ours, or the mark that some tools leave for an empty folder
            try:
                bucket.key(path)
            except StorageError as error:
                yield Unreadable(path, error)
            else:
                yield Entry(path, size_bytes, whole_seconds(found["LastModified"]))

    def stat(self, path: str) -> Entry:
        answer = self._bucket.head(path)
        if answer is None:
            raise StorageError(Fault.NOT_FOUND, "There is no such object.", path=path)
        return Entry(path, answer["ContentLength"], whole_seconds(answer["LastModified"]))

    def token_of(self, path: str) -> str | None:
        return self._bucket.token_of(path)

    def read(self, path: str, *, offset: int = 0) -> Generator[bytes]:
        return self._bucket.read(path, offset=offset)

    def read_many(self, entries: Iterable[Entry]) -> Generator[Reading]:
        wanted = (self._wanted(entry.path, entry.size_bytes, partial(self.read, entry.path)) for entry in entries)
        return read_ahead(wanted, self._bucket.signed)

    # ------------------------------------------------------------------------------------------------- writing

    def stored_path(self, path: str) -> str:
        return names.encode(path, names.S3, base_path=self._prefix.rstrip("/"))

    def write(
        self, path: str, token: str, chunks: Iterable[bytes | memoryview], *, modified_at: datetime | None = None
    ) -> Staged:
        return self._writer.write(path, token, chunks, modified_at)

    def write_many(self, files: Iterable[Incoming]) -> Generator[Staged | StorageError | WithdrawnError]:
        return self._writer.write_many(files)

    def make_durable(self, staged: Sequence[Staged]) -> None:
        """Nothing to do: an S3 server answers a PUT, a part or a completion only when it has stored it."""

    def read_back(self, staged: Staged) -> Iterator[bytes]:
        """The object at the final name, which must be this attempt's own unless it was adopted (an empty ref). An
        upload is not readable before it is published: not_found."""
        return self._bucket.read(staged.path, token=token_of_ref(staged.ref))

    def read_back_many(self, staged: Iterable[Staged]) -> Generator[Reading]:
        wanted = (
            self._wanted(item.path, item.size_bytes, partial(self.read_back, item), token_of_ref(item.ref))
            for item in staged
        )
        return read_ahead(wanted, self._bucket.signed)

    def publish(self, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
        return self._writer.publish(staged)

    def discard(self, ref: str, path: str) -> None:
        """Abort the upload and, where `path` is told, delete the object there if it carries this attempt's token.

        So what this attempt has published is taken back, too: tell the path only while nobody else can have adopted
        the object, that is, while holding the lease of the row that reserved it. Bytes that were there already when
        the attempt came, and were adopted, have an empty ref: nothing is staged, and nothing is removed.
        """
        discard(self._bucket, ref, path)

    def delete(self, path: str) -> None:
        self._bucket.delete(path)

    # -------------------------------------------------------------------------------------- our own small files

    def read_reserved(self, name: str) -> bytes | None:
        return self._bucket.read_reserved(name)

    def write_reserved(self, name: str, content: bytes) -> None:
        self._bucket.write_reserved(name, content)

    # ------------------------------------------------------------------------------------------------- health

    def free_bytes(self) -> int | None:
        return None

    def leftovers(self) -> Iterator[tuple[str, str]]:
        """The uploads that are noted in our reserved folder; a listing of uploads would not tell their tokens.

        One that was completed, and whose note a crash left behind, is among them: discarding it removes the note.
        """
        for found in self._bucket.listing(self._bucket.reserved_key(f"{NOTES}/")):
            token = found["Key"].rpartition("/")[2]
            if (ref := self.read_reserved(f"{NOTES}/{token}")) is not None:
                yield ref.decode(), token

    def check(self, *, write: bool = True) -> list[Check]:
        # A connection of its own, so that nothing is taken for granted that this one has learnt.
        fresh = copy(self)
        fresh._connected = fresh._known = None
        return check_storage(fresh, write=write)

    def probe(self) -> Probe:
        """Trials of what the server does, on scratch objects in our reserved folder."""
        bucket = self._bucket
        return Probe(bucket.client, bucket.parts_client, self._bucket_name, bucket.reserved_key(""))

    @property
    def capabilities(self) -> Capabilities:
        """What the server does with digests and conditions, as found at most a day ago."""
        if self._known is None:
            endpoint = f"{self._endpoint_url or self._region}/{self._bucket_name}"
            now = datetime.now(UTC)
            self._known = probing.from_json(self.read_reserved(probing.FILE_NAME), endpoint, now=now)
            if self._known is None:
                with self.probe() as probe:
                    self._known = probe.run()
                self.write_reserved(probing.FILE_NAME, probing.to_json(self._known, endpoint, probed_at=now))
        return self._known

    # ---------------------------------------------------------------------------------------------- internals

    @property
    def _bucket(self) -> Bucket:
        if self._connected is None:
            raise ValueError("This storage is not connected: use it as a context manager.")
        return self._connected

    @property
    def _writer(self) -> Writer:
        return Writer(self._bucket, self.capabilities)

    def _wanted(
        self, path: str, size_bytes: int, read: Callable[[], Iterator[bytes]], token: str | None = None
    ) -> Wanted:
        key = None
        with suppress(StorageError):  # reading it raises the same
            key = self._bucket.key(path)
        return Wanted(path, key, size_bytes, read, partial(self.stat, path), token)

    def _new_client(self, signs_bytes: bool) -> S3Client:
        """A client; unless it `signs_bytes`, those that it sends over plain HTTP are not part of what it signs."""
        # A session of its own: sessions may be shared neither between threads nor across a fork.
        session = Session(
            aws_access_key_id=self._access_key_id,
            aws_secret_access_key=self._secret_access_key,
            region_name=self._region,
        )
        config = _CLIENT_CONFIG
        if self._endpoint_url:  # Amazon S3 is spoken to by TLS, and by the names of its buckets
            config = config.merge(Config(s3={"addressing_style": "path"}))
            if not signs_bytes:
                config = config.merge(Config(s3={"addressing_style": "path", "payload_signing_enabled": False}))
        try:
            return session.client("s3", endpoint_url=self._endpoint_url, config=config)
        except ValueError as error:
            message = f"endpoint_url or region of the storage's connection is not valid: {error}."
            raise StorageError(Fault.CONFIGURATION, message) from error
