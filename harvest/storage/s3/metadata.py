"""What an object tells about itself, beside its bytes: user metadata (headers `x-amz-meta-…`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

TOKEN_METADATA = "streamweave-token"  # noqa: S105 (no password)
"""Names the attempt which wrote an object."""
MTIME_METADATA = "mtime"
"""The time of last change of the file that an object is a copy of: seconds since 1970 as a decimal number, as rclone
keeps it (rclone documentation, "Amazon S3", "Modification times and hashes"), so that tools which know it restore it.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def metadata(token: str, modified_at: datetime | None) -> dict[str, str]:
    """The metadata of an object that the attempt `token` writes."""
    known = {TOKEN_METADATA: token}
    return known if modified_at is None else {**known, MTIME_METADATA: seconds_since_1970(modified_at)}


def token_in(answer: Mapping[str, Any]) -> str | None:
    """The token in boto3's answer to a HEAD or GET; some servers change the case of metadata keys."""
    return {key.lower(): value for key, value in answer.get("Metadata", {}).items()}.get(TOKEN_METADATA)


def seconds_since_1970(moment: datetime) -> str:
    """`moment`, which is aware, to the microsecond."""
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    return f"{'-' if microseconds < 0 else ''}{seconds}.{fraction:06d}"
