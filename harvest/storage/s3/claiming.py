"""The right to complete an upload to a name, held by one attempt at a time.

Amazon S3 decides `If-None-Match: *` on a completion as one act. SeaweedFS 4.48 does so for a PUT only: of two uploads
completed to one name at the same moment it grants both, and the last one stays. So a completion is made while holding
a claim, a small object of our own that a conditional PUT has made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from harvest.storage.base import Fault, StorageError
from harvest.storage.s3.capabilities import not_replacing
from harvest.storage.s3.errors import status_of, telling

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WAITS_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""How long to wait between one try to get a claim and the next."""
STALE_AFTER = timedelta(minutes=2)
"""A claim this old is of a dead attempt: a completion with all its retries takes half as long."""


@contextmanager
def claim(client: S3Client, bucket: str, key: str, *, token: str, path: str) -> Iterator[None]:
    """Hold the claim `key` for the attempt `token` within; `path` is what errors name.

    One that this attempt left behind when it crashed is its own. Raises StorageError(locked) where another attempt
    holds the claim all the time.
    """
    with telling(path):
        for wait_seconds in (*WAITS_SECONDS, None):
            if _take(client, bucket, key, token):
                break
            if wait_seconds is None:
                message = "Another attempt is publishing under this name; it is tried again later."
                raise StorageError(Fault.LOCKED, message, path=path)
            time.sleep(wait_seconds)
    try:
        yield
    finally:
        with telling(path):
            client.delete_object(Bucket=bucket, Key=key)


def _take(client: S3Client, bucket: str, key: str, token: str) -> bool:
    """Whether the claim is ours now."""
    try:
        client.put_object(Bucket=bucket, Key=key, Body=token.encode(), **not_replacing(True))
    except ClientError as error:
        if status_of(error) not in (409, 412):
            raise
        return _is_ours(client, bucket, key, token)
    return True


def _is_ours(client: S3Client, bucket: str, key: str, token: str) -> bool:
    """Whether the claim that is in the way is this attempt's own. One that is stale is removed for the next try."""
    try:
        found = client.get_object(Bucket=bucket, Key=key)
        with found["Body"] as body:
            holder = body.read().decode()
        if holder == token:
            return True
        # Both times are the server's, so that our clock does not matter.
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        if now - found["LastModified"] > STALE_AFTER:
            client.delete_object(Bucket=bucket, Key=key, IfMatch=found["ETag"])
    except ClientError as error:
        if status_of(error) not in (404, 412):  # released, or taken by another, while we looked
            raise
    return False
