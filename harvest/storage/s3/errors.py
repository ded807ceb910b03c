"""What an S3 server or the way to it answered, in the words of `StorageError`.

Codes are those of the Amazon S3 API reference, "Error responses", and of the servers that add their own (MinIO, Ceph,
SeaweedFS, rclone). An answer without a body, as to HEAD, has only its HTTP status for a code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from botocore.parsers import ResponseParserError

from harvest.storage.base import Fault, StorageError

NO_S3_SERVER = "What answers is no S3 server: check endpoint_url (is it that of a web page, or of a proxy?)."

_KEYS = "The S3 server refuses the log-in: check access_key_id and secret_access_key of the storage's connection."
_EXPIRED = "The S3 server refuses the credentials as expired or invalid: put new ones into the storage's connection."
_REGION = "The bucket is not served here: check region and endpoint_url of the storage's connection."
_BUCKET = "There is no such bucket: make it on the server, or correct bucket in the storage's connection."
_DENIED = "The S3 server denies this to our access key: give it the rights to list, read, write and delete."
_GONE = "There is no such object."
_UPLOAD_GONE = "The multipart upload is gone: it was aborted or completed, or the server expired it."
_TAKEN = "The name is taken already; nothing was replaced."
_CONFLICT = "Another request touches the same name at this moment; it is tried again later."
_BUSY = "The S3 server is busy or failed inside; it is tried again later."
_DAMAGED = "The bytes that arrived are not those that were sent; nothing was stored, it is tried again later."
_LARGE = "The file is larger than the S3 server takes: raise its limit, or harvest the file to another storage."
_NAME = "The S3 server cannot hold a name this long or of this form: redirect the file or shorten its path."
_FULL = "The storage is full or its quota is used up: make room or raise the quota."
_CLOCK = "Our clock and the S3 server's differ by more than it allows: set both by NTP."
_UNABLE = "The S3 server cannot do what was asked of it: use one that speaks the S3 API in full."

_BY_CODE: dict[str, tuple[Fault, str]] = {
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "401"), (Fault.AUTHENTICATION, _KEYS)
    ),
    **dict.fromkeys(("InvalidToken", "ExpiredToken", "TokenRefreshRequired"), (Fault.AUTHENTICATION, _EXPIRED)),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"),
        (Fault.CONFIGURATION, _REGION),
    ),
    **dict.fromkeys(("NoSuchBucket", "InvalidBucketName"), (Fault.NO_SUCH_SHARE, _BUCKET)),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "403"), (Fault.DENIED, _DENIED)),
    **dict.fromkeys(("NoSuchKey", "NotFound", "404"), (Fault.NOT_FOUND, _GONE)),
    "NoSuchUpload": (Fault.NOT_FOUND, _UPLOAD_GONE),
    **dict.fromkeys(("PreconditionFailed", "412"), (Fault.EXISTS, _TAKEN)),
    **dict.fromkeys(("ConditionalRequestConflict", "OperationAborted", "409"), (Fault.IO, _CONFLICT)),
    **dict.fromkeys(
        ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"),
        (Fault.IO, _DAMAGED),
    ),
    **dict.fromkeys(("EntityTooLarge", "413"), (Fault.IO, _LARGE)),
    **dict.fromkeys(
        ("KeyTooLongError", "KeyTooLong", "InvalidURI", "InvalidObjectName", "XMinioInvalidObjectName", "414"),
        (Fault.NAME, _NAME),
    ),
    **dict.fromkeys(
        ("QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"),
        (Fault.FULL, _FULL),
    ),
    "RequestTimeTooSkewed": (Fault.CONFIGURATION, _CLOCK),
    **dict.fromkeys(("NotImplemented", "501"), (Fault.CONFIGURATION, _UNABLE)),
}

_PERMANENCE = {"EntityTooLarge": True, "413": True, "RequestTimeTooSkewed": False}
"""Where a code differs from what its fault says of trying again."""

_LATER = "it is tried again later."
_BY_CLASS: tuple[tuple[type[Exception], Fault, str], ...] = (
    (exceptions.ConnectTimeoutError, Fault.TIMEOUT, "The S3 server does not answer: check endpoint_url and firewall."),
    (exceptions.ReadTimeoutError, Fault.TIMEOUT, f"The S3 server stopped answering; {_LATER}"),
    (
        exceptions.SSLError,
        Fault.CONFIGURATION,
        "No secure connection: check the server's certificate and endpoint_url.",
    ),
    (exceptions.EndpointConnectionError, Fault.UNREACHABLE, "Nothing answers: check endpoint_url and the S3 server."),
    (exceptions.ProxyConnectionError, Fault.UNREACHABLE, "The proxy does not answer: check this machine's settings."),
    (exceptions.ConnectionClosedError, Fault.UNREACHABLE, f"The S3 server closed the connection; {_LATER}"),
    (exceptions.ResponseStreamingError, Fault.IO, f"The connection broke within the answer; {_LATER}"),
    (exceptions.IncompleteReadError, Fault.IO, f"The answer ended early; {_LATER}"),
    (exceptions.HTTPClientError, Fault.UNREACHABLE, f"The exchange with the S3 server failed; {_LATER}"),
    (exceptions.ParamValidationError, Fault.CONFIGURATION, "Bucket, region or a path is not valid: correct it."),
    (exceptions.EndpointProviderError, Fault.CONFIGURATION, "endpoint_url or region is not valid: correct it."),
    (ResponseParserError, Fault.UNREACHABLE, NO_S3_SERVER),
    (UnicodeEncodeError, Fault.NAME, "The name is not valid Unicode and was not encoded for S3."),
    (exceptions.BotoCoreError, Fault.IO, f"The exchange with the S3 server failed; {_LATER}"),
)
"""In this order: a class comes before those that it derives from."""

FOREIGN: tuple[type[Exception], ...] = (exceptions.ClientError, *(kind for kind, _, _ in _BY_CLASS))
"""What boto3 may raise for a request."""


def code_of(error: exceptions.ClientError) -> str:
    """The S3 error code, or the HTTP status where the answer had no body."""
    return error.response.get("Error", {}).get("Code", "")


def status_of(error: exceptions.ClientError) -> int:
    """The HTTP status of the answer, 0 where there is none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def classify(error: Exception, *, path: str = "") -> StorageError:
    """The StorageError that says what `error`, one of `FOREIGN`, means for the file at `path`."""
    if not isinstance(error, exceptions.ClientError):
        fault, advice = next((fault, advice) for kind, fault, advice in _BY_CLASS if isinstance(error, kind))
        return StorageError(fault, f"{advice} ({type(error).__name__}: {error})", path=path)
    code, status = code_of(error), str(status_of(error))
    if _is_web_page(error):
        return StorageError(Fault.UNREACHABLE, f"{NO_S3_SERVER} ({code} in {error.operation_name})", path=path)
    fault, advice = _BY_CODE.get(code) or _BY_CODE.get(status) or (Fault.IO, _BUSY)
    permanent = _PERMANENCE.get(code, _PERMANENCE.get(status))
    said = error.response.get("Error", {}).get("Message") or "no explanation"
    return StorageError(fault, f"{advice} ({code} in {error.operation_name}: {said})", path=path, permanent=permanent)


def _is_web_page(error: exceptions.ClientError) -> bool:
    """Whether HTML came instead of S3's XML. An answer to HEAD has no body, so its type tells nothing."""
    kind = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("content-type", "")
    return kind.startswith("text/html") and not error.operation_name.startswith("Head")


@contextmanager
def telling(path: str = "") -> Iterator[None]:
    """Turn what boto3 raises within into StorageError about `path`."""
    try:
        yield
    except FOREIGN as error:
        raise classify(error, path=path) from error
