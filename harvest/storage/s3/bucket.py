"""One connection to the objects below a key prefix (the base path) of one bucket."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from harvest.storage import names
from harvest.storage.base import RESERVED, Fault, StorageError
from harvest.storage.s3.capabilities import MD5, body_arguments, require_etag
from harvest.storage.s3.errors import NO_S3_SERVER, status_of, telling
from harvest.storage.s3.metadata import token_in
from harvest.storage.s3.reading import read_object
from harvest.storage.s3.signed import SignedRequests, signed_requests

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

THREADS = 8
"""How many requests boto3 makes at once where there is work for so many."""


class Bucket:
    """The requests that need no knowledge of what the server can do. Errors name the path, which is the key without
    the prefix. `signed` is None where every request is left to boto3."""

    def __init__(
        self, new_client: Callable[[bool], S3Client], name: str, prefix: str, credentials: Credentials
    ) -> None:
        """`new_client` makes a client, told whether it shall sign all bytes that it sends. Raises StorageError where it
        cannot, or where the bucket cannot be listed."""
        with telling():
            self.client = new_client(True)
        self._new_client = new_client
        self._parts_client: S3Client | None = None
        self.name = name
        self.prefix = prefix
        self.signed: SignedRequests | None = None
        self._executor: ThreadPoolExecutor | None = None
        try:
            self._look(credentials)
        except BaseException:
            self.close()
            raise

    def _look(self, credentials: Credentials) -> None:
        with telling():
            # GET rather than HEAD: its refusal has a body, which tells a wrong key from a missing right.
            answer = self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)
            if "IsTruncated" not in answer:  # not a listing, but XML all the same
                raise StorageError(Fault.UNREACHABLE, NO_S3_SERVER)
            self.signed = signed_requests(self.client, self.name, credentials)

    def close(self) -> None:
        """End the threads, then the connections."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        if self.signed is not None:
            self.signed.close()
        if self._parts_client is not None:
            self._parts_client.close()
        self.client.close()

    @property
    def parts_client(self) -> S3Client:
        """The client for parts with a digest that the server checks.

        It signs the digest, and not the bytes beside it, which boto3 does over plain HTTP and leaves off over TLS: to
        hash everything once more takes as long as all else that it does.
        """
        if self._parts_client is None:
            self._parts_client = self._new_client(False)
        return self._parts_client

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Threads for requests by boto3; its client may be shared by them."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        return self._executor

    def key(self, path: str) -> str:
        # Some servers take a backslash for a slash, and resolve or refuse "", "." and "..": such keys are not used.
        names.split(path, separators="\\")
        return self.prefix + path

    def reserved_key(self, name: str) -> str:
        return f"{self.prefix}{RESERVED}/{name}"

    def head(self, path: str) -> Any:
        """The answer to HEAD, or None where there is no object."""
        with telling(path):
            try:
                return self.client.head_object(Bucket=self.name, Key=self.key(path))
            except ClientError as error:
                if status_of(error) == 404:
                    return None
                raise

    def token_of(self, path: str) -> str | None:
        """The token of the attempt that wrote the object at `path`; None where there is no object, or no token."""
        answer = self.head(path)
        return None if answer is None else token_in(answer)

    def refuse_taken(self, path: str) -> None:
        """Raises StorageError(exists) where there is an object."""
        if self.head(path) is not None:
            raise StorageError(Fault.EXISTS, "The name is taken already; nothing was replaced.", path=path)

    def explain_taken(self, error: StorageError, path: str, token: str) -> None:
        """Return where the object that is in the way is this attempt's own: the first answer was lost, and the request
        was sent again. Raise `error` otherwise."""
        if error.fault not in (Fault.EXISTS, Fault.NOT_FOUND) or self.token_of(path) != token:
            raise error

    def listing(self, start: str, *, delimiter: str = "") -> Iterator[ObjectTypeDef]:
        """All objects whose keys begin with `start` (and have no `delimiter` after it), a page at a time."""
        lister = self.client.get_paginator("list_objects_v2")
        pages = iter(lister.paginate(Bucket=self.name, Prefix=start, Delimiter=delimiter))
        while True:
            with telling():
                page = next(pages, None)
            if page is None:
                return
            yield from page.get("Contents", ())

    def read(self, path: str, *, offset: int = 0, token: str | None = None) -> Generator[bytes]:
        """See `read_object`."""
        return read_object(self.client, self.name, self.key(path), path=path, offset=offset, token=token)

    def delete(self, path: str) -> None:
        with telling(path):
            self.client.delete_object(Bucket=self.name, Key=self.key(path))

    def read_reserved(self, name: str) -> bytes | None:
        """A small object of our own, or None where there is none."""
        key = self.reserved_key(name)
        try:
            return b"".join(read_object(self.client, self.name, key, path=f"{RESERVED}/{name}"))
        except StorageError as error:
            if error.fault is Fault.NOT_FOUND:
                return None
            raise

    def write_reserved(self, name: str, content: bytes) -> None:
        path = f"{RESERVED}/{name}"
        with telling(path):
            answer = self.client.put_object(
                Bucket=self.name, Key=self.reserved_key(name), **body_arguments(content, MD5)
            )
        require_etag(answer, path)
