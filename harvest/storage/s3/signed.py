"""Requests for single objects, signed by botocore's own signer and sent over kept connections.

boto3 spends more on a small object than the server does: it works out address, headers and answer anew each time, and
waits for each answer. Here botocore is asked once how it reaches the bucket (address style, region, way of signing).
After that only key, headers and body vary, and many requests are outstanding.

A request is made once. Whatever is not plain success is no result at all: the caller then does the same by boto3,
which tries again with back-off and tells what is wrong.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection, AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders, get_current_datetime
from botocore.credentials import Credentials
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.utils import percent_encode
from urllib3.exceptions import HTTPError

from harvest.storage.s3.kept import Connection, Exchange, KeptConnections

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_CONNECTIONS = 16
"""How many requests are outstanding at once: SeaweedFS on one machine gains nothing by more."""

_EXAMPLE_KEY = "example"
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/(?P<region>[^/]+)/s3/aws4_request, .*")
_UNDERSTOOD = frozenset(
    {"user-agent", "x-amz-date", "x-amz-content-sha256", "authorization", "amz-sdk-invocation-id", "amz-sdk-request"}
)
"""The headers of botocore's request for an object's head; any further one would be of something that we do not do."""
_MOST_ANSWERED_BYTES = 64 << 10
"""How long an answer may be that is no object: an S3 error has some hundred bytes."""


class SignedRequests:
    """Requests for objects of one bucket. Used by one thread."""

    def __init__(self, client: S3Client, credentials: Credentials, example: AWSPreparedRequest, region: str) -> None:
        """See `signed_requests`."""
        self._auth = S3SigV4Auth(credentials, "s3", region)
        base_url = example.url.removesuffix(_EXAMPLE_KEY)
        self._user_agent = _text(example.headers["User-Agent"])
        shape: Any = client.meta.service_model.operation_model("PutObject").input_shape
        self._members = shape.members
        self._connections = _connections(client, base_url)
        self._base_path = urlsplit(base_url).path
        self._host = self._auth.headers_to_sign(AWSRequest("GET", base_url))["host"]

    def put(self, key: str, content: bytes | bytearray, arguments: Mapping[str, Any]) -> Exchange | None:
        """Begin to store `content`; `arguments` are those of boto3's put_object. None where it could not be sent."""
        return self._send("PUT", key, self._headers(arguments), content, _MOST_ANSWERED_BYTES)

    def get(self, key: str, *, most_bytes: int) -> Exchange | None:
        """Begin to get an object of at most `most_bytes`. None where that could not be asked for."""
        return self._send("GET", key, {}, b"", most_bytes)

    def close(self) -> None:
        self._connections.close()

    def _headers(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The headers that boto3 makes of the arguments of a put_object."""
        headers: dict[str, str] = {}
        for name, value in arguments.items():
            header = self._members[name].serialization["name"].lower()
            if isinstance(value, Mapping):  # of user metadata the model tells what their names begin with
                headers |= {f"{header}{key}": text for key, text in value.items()}
            else:
                headers[header] = value
        return headers

    def _send(
        self, method: str, key: str, headers: Mapping[str, str], content: bytes | bytearray, most_bytes: int
    ) -> Exchange | None:
        try:
            path = self._base_path + percent_encode(key, safe="/~")
            signed = self._sign(method, path, headers, hashlib.sha256(content).hexdigest())
            lines = [f"{method} {path} HTTP/1.1", f"User-Agent: {self._user_agent}"]
            if method == "PUT":
                lines.append(f"Content-Length: {len(content)}")
            lines += [f"{name}: {value}" for name, value in signed.items()]
            head = "\r\n".join([*lines, "\r\n"]).encode("ascii")
            return self._connections.send(head, content, most_bytes=most_bytes)
        except (OSError, HTTPError, UnicodeEncodeError):  # boto3 meets the same, and tells it
            return None

    def _sign(self, method: str, path: str, headers: Mapping[str, str], content_sha256: str) -> dict[str, str]:
        """`headers` and those that prove who sends them.

        botocore's signer derives key and signature. Only the canonical request (Amazon S3 API reference, "Signature
        Calculations for the Authorization Header") is put together here, in a third of the time: all names are in
        lower case, no value has spaces to fold, and there is no query.
        """
        timestamp = get_current_datetime().strftime(SIGV4_TIMESTAMP)
        headers = {
            **headers,
            "host": self._host,
            "x-amz-content-sha256": content_sha256,
            "x-amz-date": timestamp,
        }
        names = sorted(headers)
        named = ";".join(names)
        lines = [method, path, "", *(f"{name}:{headers[name]}" for name in names), "", named, content_sha256]
        request = AWSRequest(method)
        request.context["timestamp"] = timestamp
        to_sign = self._auth.string_to_sign(request, "\n".join(lines))
        scope, signature = self._auth.scope(request), self._auth.signature(to_sign, request)
        authorization = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={named}, Signature={signature}"
        return {**headers, "authorization": authorization}


def signed_requests(client: S3Client, bucket: str, credentials: Credentials) -> SignedRequests | None:
    """Signed requests as `client` makes them.

    None where all is left to boto3: it goes through a proxy, or signs in another way than Signature Version 4 for one
    region (directory buckets, multi-region access points).
    """
    example = _example(client, bucket)
    said = _CREDENTIAL.fullmatch(_text(example.headers.get("Authorization", "")))
    if said is None or not {name.lower() for name in example.headers} <= _UNDERSTOOD:
        return None
    if not example.url.endswith(f"/{_EXAMPLE_KEY}") or _session(client)._proxy_config.proxy_url_for(example.url):
        return None
    return SignedRequests(client, credentials, example, said["region"])


class _Silence(io.BytesIO):
    """An empty body as botocore reads one."""

    def stream(self) -> Iterator[bytes]:
        return iter(())


def _example(client: S3Client, bucket: str) -> AWSPreparedRequest:
    """The request that botocore would send for the head of an object. Nothing is sent."""
    seen: list[AWSPreparedRequest] = []

    def answer(request: AWSPreparedRequest, **_: Any) -> Any:
        seen.append(request)
        return AWSResponse(request.url, 200, HTTPHeaders(), _Silence())

    event = "before-send.s3.HeadObject"
    client.meta.events.register_first(event, answer)
    try:
        client.head_object(Bucket=bucket, Key=_EXAMPLE_KEY)
    finally:
        client.meta.events.unregister(event, answer)
    return seen[-1]


def _session(client: S3Client) -> Any:
    """botocore's own HTTP session; nothing public tells which proxies and certificates it goes by."""
    return client._endpoint.http_session  # type: ignore[attr-defined]  # private, so not in the stubs


def _connections(client: S3Client, base_url: str) -> KeptConnections:
    """Connections as botocore makes them: the same time limits, and the same certificates trusted."""
    parts = urlsplit(base_url)
    config: Any = client.meta.config
    where: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "timeout": config.connect_timeout}

    def make() -> Connection:
        if parts.scheme == "http":
            return AWSHTTPConnection(**where)
        trusted = get_cert_path(_session(client)._verify)
        context = create_urllib3_context()
        return AWSHTTPSConnection(**where, ssl_context=context, cert_reqs="CERT_REQUIRED", ca_certs=trusted)

    return KeptConnections(make, most=MOST_CONNECTIONS, read_timeout=config.read_timeout)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
