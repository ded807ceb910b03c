from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from hooks import webhooks
from hooks.decisions import HookError
from tests.hooks.receiver import Receiver, answering, receiving

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
QUESTION = b'{"files": []}'


@pytest.fixture(autouse=True)
def _loopback_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = [ipaddress.ip_network("127.0.0.0/8")]


def ask(receiver: Receiver, *, secret: str = SECRET, path: str = "/hook", seconds: float = 15) -> bytes:
    return webhooks.ask(receiver.url(path), secret, "msg_1", QUESTION, seconds=seconds)


def test_the_question_is_posted_and_the_answer_read() -> None:
    with receiving(answering(b'{"files": {}}')) as receiver:
        assert ask(receiver, path="/hook?lab=1") == b'{"files": {}}'
    (path, headers, body), *others = receiver.requests
    assert not others
    assert (path, body) == ("/hook?lab=1", QUESTION)
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"


def test_an_independent_library_accepts_the_signature() -> None:
    with receiving(answering(b"")) as receiver:
        ask(receiver)
    _, headers, body = receiver.requests[0]
    assert headers["webhook-id"] == "msg_1"
    assert Webhook(SECRET).verify(body, headers) == json.loads(QUESTION)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, {**headers, "webhook-id": "msg_2"})


def test_an_old_request_cannot_be_sent_again() -> None:
    headers = webhooks.signed_headers(SECRET, "msg_1", QUESTION, time.time() - 600)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(QUESTION, headers)


def test_while_the_secret_is_changed_both_signatures_are_sent() -> None:
    headers = webhooks.signed_headers(f"{SECRET} {OTHER}", "msg_1", QUESTION, time.time())
    assert Webhook(SECRET).verify(QUESTION, headers) == Webhook(OTHER).verify(QUESTION, headers)


def test_the_same_question_has_the_same_id_and_no_other_has() -> None:
    one = webhooks.message_id("hook-1", QUESTION)
    assert one == webhooks.message_id("hook-1", QUESTION)
    assert len({one, webhooks.message_id("hook-2", QUESTION), webhooks.message_id("hook-1", QUESTION + b" ")}) == 3


@pytest.mark.parametrize("secret", ["", "  ", "secret", base64.b64encode(bytes(32)).decode(), "whsec_", "whsec_QUJD"])
def test_a_secret_of_another_form_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(webhooks.SecretFormatError) as caught:
        webhooks.keys(secret)
    assert "QUJD" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ what fails, and how


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (500, {}, "answered 500 Internal Server Error"),
        (404, {}, "answered 404 Not Found"),
        (410, {}, "answered 410 Gone: the receiver wants no more of this; disable the hook"),
        (429, {"Retry-After": "120"}, "answered 429 Too Many Requests; it asks to wait: 120"),
    ],
)
def test_only_2xx_is_success(status: int, headers: dict[str, str], message: str) -> None:
    with receiving(answering(b'{"files": {}}', status, **headers)) as receiver, pytest.raises(HookError, match=message):
        ask(receiver)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(status: int) -> None:
    with receiving(answering(b"secret of the neighbour")) as neighbour:
        with (
            receiving(answering(b"", status, Location=neighbour.url("/"))) as receiver,
            pytest.raises(HookError, match=f"answered {status} .*redirects are not followed"),
        ):
            ask(receiver)
        assert not neighbour.requests


def test_a_receiver_that_does_not_answer_is_left() -> None:
    def silent(handler: BaseHTTPRequestHandler, question: bytes) -> None:
        receiver.stopped.wait(60)

    with receiving(silent) as receiver, pytest.raises(HookError, match="did not answer within 1 s"):
        ask(receiver, seconds=1)


@pytest.mark.parametrize("where", ["status", "headers", "body"])
def test_a_receiver_that_drips_is_left_as_well(where: str) -> None:
    before = {"status": b"", "headers": b"HTTP/1.1 200 OK\r\nX-Slow: ", "body": b"HTTP/1.1 200 OK\r\n\r\n"}[where]

    def drip(handler: BaseHTTPRequestHandler, question: bytes) -> None:
        handler.wfile.write(before)
        while not receiver.stopped.wait(0.1):
            handler.wfile.write(b"x")

    with receiving(drip) as receiver, pytest.raises(HookError, match="did not answer within 1 s"):
        ask(receiver, seconds=1)


def test_an_answer_without_end_is_cut_off() -> None:
    def endless(handler: BaseHTTPRequestHandler, question: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not receiver.stopped.is_set():
            handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    with receiving(endless) as receiver, pytest.raises(HookError, match="longer than 1048576 bytes"):
        ask(receiver)


def test_headers_without_end_are_cut_off() -> None:
    def endless(handler: BaseHTTPRequestHandler, question: bytes) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not receiver.stopped.is_set():
            handler.wfile.write(b"X-More: " + b"x" * 1000 + b"\r\n")

    with receiving(endless) as receiver, pytest.raises(HookError, match="could not be asked"):
        ask(receiver)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort", "could not be asked"),
        (b"220 mail.example.org ESMTP\r\n", "could not be asked"),
        (b"", "could not be asked"),
    ],
)
def test_an_answer_that_breaks_off_or_is_no_http_is_a_failure(raw: bytes, message: str) -> None:
    def respond(handler: BaseHTTPRequestHandler, question: bytes) -> None:
        handler.wfile.write(raw)
        handler.close_connection = True

    with receiving(respond) as receiver, pytest.raises(HookError, match=message):
        ask(receiver)


def test_an_answer_whose_end_is_the_end_of_the_connection_is_read() -> None:
    def respond(handler: BaseHTTPRequestHandler, question: bytes) -> None:
        handler.wfile.write(b'HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{"files": {}}')
        handler.close_connection = True

    with receiving(respond) as receiver:
        assert ask(receiver) == b'{"files": {}}'


def test_a_receiver_that_is_down_is_named() -> None:
    with receiving(answering(b"")) as receiver:
        pass
    with pytest.raises(HookError, match=r"127\.0\.0\.1 could not be asked: .*refused"):
        ask(receiver)


# ----------------------------------------------------------------------------------------------- whom it may talk to


def test_this_machine_is_not_talked_to_unless_the_settings_allow_it(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = [ipaddress.ip_network("10.0.0.0/8")]
    with receiving(answering(b"")) as receiver:
        with pytest.raises(HookError, match="WEBHOOK_ALLOW_PRIVATE"):
            ask(receiver)
        assert not receiver.requests


def test_a_name_that_changes_its_address_after_the_check_is_not_followed(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look-up says 127.0.0.2, which is allowed and where nobody listens; every later one says 127.0.0.1."""
    settings.WEBHOOK_ALLOW_PRIVATE = [ipaddress.ip_network("127.0.0.2/32")]
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.example.org":
            return real(host, *args, **kwargs)
        asked.append(host)
        return real("127.0.0.2" if len(asked) == 1 else "127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with receiving(answering(b"")) as receiver:
        with pytest.raises(HookError, match="could not be asked"):
            webhooks.ask(receiver.url(host="rebinding.example.org"), SECRET, "msg_1", QUESTION)
        assert not receiver.requests
    assert len(asked) == 1


def certificate(folder: Path, host: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "receiver.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_https_checks_the_certificate_and_the_name_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path, "localhost")
    with receiving(answering(b"answer"), path) as receiver:
        with pytest.raises(HookError, match="certificate verify failed"):
            webhooks.ask(receiver.url(scheme="https", host="localhost"), SECRET, "msg_1", QUESTION)
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        answer = webhooks.ask(receiver.url(scheme="https", host="localhost"), SECRET, "msg_1", QUESTION)
        assert answer == b"answer"
        with pytest.raises(HookError, match=r"IP address mismatch"):
            webhooks.ask(receiver.url(scheme="https"), SECRET, "msg_1", QUESTION)
    assert len(receiver.requests) == 1
