"""Ends of connections for the tests of S3: a recorder, a relay that may speak TLS, and a pair of sockets."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harvest.demo.servers import SeaweedServer


class Pair:
    """A connection whose other end is `far`."""

    def __init__(self) -> None:
        self.sock, self.far = socket.socketpair()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.far.close()

    def connect(self) -> None:
        pass

    def close(self) -> None:
        self.sock.close()

    @property
    def is_closed(self) -> bool:
        return self.sock.fileno() < 0

    def say(self, said: bytes) -> None:
        with suppress(OSError):  # the other end may have heard enough
            self.far.sendall(said)
            self.far.shutdown(socket.SHUT_WR)


@contextmanager
def recording() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """The address of a server that takes everything, and what it was asked: request lines with their headers."""
    requests: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(listing)))
            self.end_headers()
            self.wfile.write(listing)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.requestline, {name.lower(): text for name, text in self.headers.items()}))
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Relay:
    """Passes connections on to a server, with `context` as the TLS end of them."""

    def __init__(self, server: SeaweedServer, context: ssl.SSLContext | None) -> None:
        self.accepted = 0
        self._server = server
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        scheme = "http" if context is None else "https"
        self.endpoint_url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        self._threads[0].start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._ends:
            _hang_up(end)
        for thread in self._threads[1:]:
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                near = self._context.wrap_socket(end, server_side=True) if self._context else end
            except (ssl.SSLError, ConnectionError):  # it did not trust us
                end.close()
                continue
            far = socket.create_connection((self._server.host, self._server.port))
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                thread = threading.Thread(target=_pump, args=(source, target))
                self._threads.append(thread)
                thread.start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either end may go at any time
        while received := source.recv(1 << 16):
            target.sendall(received)
    _hang_up(target)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):  # it is gone already
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay_to(server: SeaweedServer, context: ssl.SSLContext | None) -> Iterator[Relay]:
    relay = Relay(server, context)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """The TLS of a server at 127.0.0.1, and the certificate that those who trust it need."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret, public = folder / "key.pem", folder / "certificate.pem"
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, secret)
    return context, public
