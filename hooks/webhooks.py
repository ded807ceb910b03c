"""Webhooks: the question of a batch as a signed POST, the answer in its response.

Requests are signed by Standard Webhooks 1.0 (https://www.standardwebhooks.com): `webhook-id` is the same whenever the
same question is asked again, `webhook-timestamp` is the time of sending in seconds, `webhook-signature` is an
HMAC-SHA256 over both and the body. The specification wants small bodies, so a batch is sent in parts of at most
MAX_BODY_BYTES; only a single file with much metadata may exceed them.

Only 2xx is success; a redirect is a failure. The caller asks again later.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import socket
import ssl
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

from hooks import addresses
from hooks.addresses import AddressError, IPAddress, Target
from hooks.decisions import HookError
from hooks.text import storable

TIMEOUT_SECONDS = 15.0
"""For one request from connecting to the last byte; looking up the name is limited by the system's resolver."""
BATCH_SECONDS = 60.0
"""For all requests of one batch together."""
RESOLVER_SECONDS = 10.0
"""What a lookup takes at most where the system's resolver is set up as usual."""
MAX_BODY_BYTES = 20_000
MAX_ANSWER_BYTES = 1 << 20
SECRET_PREFIX = "whsec_"  # noqa: S105 (it is the prefix that is no secret)
SECRET_BYTES = (24, 64)


class SecretFormatError(ValueError):
    """A signing secret is not of the form that Standard Webhooks prescribes; the message shows nothing of it."""


def keys(secret: str) -> list[bytes]:
    """The keys in `secret`: one, or several with spaces between while it is changed. Raises SecretFormatError."""
    found = []
    for word in secret.split():
        try:
            key = base64.b64decode(word.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not word.startswith(SECRET_PREFIX) or not SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]:
            raise SecretFormatError(
                f"The secret must be {SECRET_PREFIX} and {SECRET_BYTES[0]} to {SECRET_BYTES[1]} random bytes in base64,"
                " such as `openssl rand -base64 32` prints; several are separated by spaces."
            )
        found.append(key)
    if not found:
        raise SecretFormatError("A webhook needs a secret, with which the receiver can tell our requests from others.")
    return found


def message_id(hook_id: object, question: bytes) -> str:
    """The `webhook-id` of a question: the same whenever the same hook asks the same."""
    digest = hashlib.sha256(str(hook_id).encode() + b"\n" + question)
    return f"msg_{digest.hexdigest()[:32]}"


def signed_headers(secret: str, webhook_id: str, question: bytes, now: float) -> dict[str, str]:
    """The three headers of Standard Webhooks; one signature for each key in `secret`."""
    timestamp = str(int(now))
    content = f"{webhook_id}.{timestamp}.".encode() + question
    signatures = (hmac.digest(key, content, "sha256") for key in keys(secret))
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in signatures),
    }


def ask(url: str, secret: str, webhook_id: str, question: bytes, *, seconds: float = TIMEOUT_SECONDS) -> bytes:
    """The receiver's answer to `question`, which it has `seconds` for. Raises HookError."""
    try:
        target = addresses.parse(url)
        headers = signed_headers(secret, webhook_id, question, time.time())
        candidates = addresses.resolve(target)
    except (AddressError, SecretFormatError) as error:
        raise HookError(str(error)) from None
    headers |= {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "StreamWeave"}
    deadline = time.monotonic() + seconds
    try:
        with _connected(target, candidates, deadline) as connection:
            return _exchange(_TimedSocket(connection, deadline), target, headers, question)
    except TimeoutError:
        raise HookError(f"{target.host} did not answer within {seconds:.0f} s") from None
    except (OSError, HTTPException) as error:
        why = str(error) or type(error).__name__
        raise HookError(f"{target.host} could not be asked: {storable(why, 300)}") from None


def _exchange(connection: _TimedSocket, target: Target, headers: dict[str, str], question: bytes) -> bytes:
    client = (HTTPSConnection if target.https else HTTPConnection)(target.host, target.port)
    client.sock = connection
    client.request("POST", target.path, question, headers)
    response = client.getresponse()
    if not 200 <= response.status < 300:
        raise HookError(_refused(target, response))
    answer = response.read(MAX_ANSWER_BYTES + 1)
    if len(answer) > MAX_ANSWER_BYTES:
        raise HookError(f"the answer of {target.host} is longer than {MAX_ANSWER_BYTES} bytes")
    if response.length:
        raise HookError(f"the answer of {target.host} broke off")
    return answer


def _refused(target: Target, response: HTTPResponse) -> str:
    status = f"{target.host} answered {response.status} {storable(response.reason, 60)}"
    if 300 <= response.status < 400:
        return f"{status}; redirects are not followed, enter the final URL"
    if response.status == HTTPStatus.GONE:
        return f"{status}: the receiver wants no more of this; disable the hook or enter another URL"
    wait = response.headers.get("Retry-After")
    return f"{status}; it asks to wait: {storable(wait, 60)}" if wait else status


def _connected(target: Target, candidates: Sequence[IPAddress], deadline: float) -> socket.socket:
    """A connection to the first of the checked addresses that takes it. Raises OSError, of the last one tried."""
    for index, address in enumerate(candidates):
        try:
            connection = socket.create_connection((str(address), target.port), _remaining(deadline))
            break
        except OSError:
            if index + 1 == len(candidates):
                raise
    if not target.https:
        return connection
    try:
        connection.settimeout(_remaining(deadline))
        return ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)
    except BaseException:
        connection.close()
        raise


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


class _TimedSocket:
    """What http.client uses of a socket, with one deadline for everything instead of a time limit for each piece.

    A receiver that sends one byte every few seconds is cut off like one that sends none. Closing is left to the owner
    of the connection.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(_remaining(self._deadline))
        self._connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._connection, self._deadline))

    def close(self) -> None:
        pass


class _TimedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_remaining(self._deadline))
        return self._connection.recv_into(buffer)
