"""Sending to real receivers: where it goes, what is believed, and what nobody can make it do."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme
from openai import InvalidWebhookSignatureError, OpenAI

from api.webhooks.sender import Resolve, Sender, resolve
from registry.webhooks import Answer, Delivery
from tests.support.webhooks import Receiver, receiving, status

SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2VjcmV0IG9mIHllc3RlcmRheQ==")
BODY = json.dumps({"id": "evt_1", "object": "event", "type": "fine_tuning.job.failed", "data": {"id": "ftjob-1"}})
PUBLIC = "93.184.215.14"
NO_ADDRESS = "its host's name is not known, or leads to an address that is not a public one"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver's thread may take its time to begin TLS on a busy machine."""
    monkeypatch.setattr("api.webhooks.sender._CONNECT_SECONDS", 60.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as receiver:
        yield receiver


def send(
    url: str,
    *,
    resolve: Resolve = lambda host, port: ["127.0.0.1"],
    allow_private: bool = True,
    verify: ssl.SSLContext | None = None,
    total_seconds: float = 60,
) -> Answer:
    async def run() -> Answer:
        sender = Sender(allow_private=allow_private, resolve=resolve, verify=verify, total_seconds=total_seconds)
        try:
            return await sender.send(Delivery("wh_1", "webhook-1", 1, url, BODY.encode(), SECRETS))
        finally:
            await sender.close()

    return asyncio.run(run())


def test_the_openai_client_believes_it(receiver: Receiver) -> None:
    answer = send(f"http://hooks.internal:{receiver.port}/a%20b?c=d")
    assert (answer.status_code, answer.error) == (200, None)
    received = receiver.next()
    assert received.path == "/a%20b?c=d"
    assert received.headers["host"] == f"hooks.internal:{receiver.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == "wh_1"
    with OpenAI(api_key="none") as client:
        for secret in SECRETS:
            event = client.webhooks.unwrap(received.body, received.headers, secret=secret)
            assert (event.type, event.data.id) == ("fine_tuning.job.failed", "ftjob-1")
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(received.body, received.headers, secret="whsec_b3RoZXI=")
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(received.body + b" ", received.headers, secret=SECRETS[0])


def test_the_certificate_of_the_name_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to an address, and TLS is about the name all the same."""
    authority = trustme.CA()
    verify = ssl.create_default_context()
    authority.configure_trust(verify)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example.com").configure_cert(tls)
    asked_for: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked_for.append(name)
    with receiving(Receiver(), tls) as receiver:
        good = send(f"https://hooks.example.com:{receiver.port}/", verify=verify)
        assert (good.status_code, good.error) == (200, None)
        other = send(f"https://other.example.com:{receiver.port}/", verify=verify)
        assert other.status_code is None
        assert "its certificate is not accepted" in str(other.error)
        assert "other.example.com" in str(other.error)
        untrusted = send(f"https://hooks.example.com:{receiver.port}/")
        assert "its certificate is not accepted" in str(untrusted.error)
        authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        assert send(f"https://hooks.example.com:{receiver.port}/").status_code == 200
    assert asked_for == ["hooks.example.com", "other.example.com", *["hooks.example.com"] * 2]


def test_plain_http_where_tls_is_asked_for(receiver: Receiver) -> None:
    assert send(f"https://hooks.example.com:{receiver.port}/").error == "no TLS came about"


@pytest.mark.parametrize(
    "forbidden", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1"]
)
def test_a_name_of_a_private_address(receiver: Receiver, forbidden: str) -> None:
    """Whether or not it has public ones beside it. What is said is what is said of a name that is not known."""
    url = f"https://hooks.example.com:{receiver.port}/"
    for addresses in ([forbidden], [PUBLIC, forbidden], [forbidden, PUBLIC]):
        answer = send(url, resolve=lambda host, port, found=addresses: found, allow_private=False)  # type: ignore[misc]
        assert answer.error == NO_ADDRESS
    assert receiver.received.empty()


def test_a_setting_taken_back_counts_at_once(receiver: Receiver) -> None:
    answer = send(receiver.url, allow_private=False)
    assert answer.error == "url does not begin with https://"
    assert receiver.received.empty()


def test_odd_spellings_of_this_machine_reach_nothing(receiver: Receiver) -> None:
    """As the system's own resolver reads them, were they ever stored."""
    for host in ("2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "127.0.0.1.nip.invalid"):
        answer = send(
            f"https://{host}:{receiver.port}/",
            resolve=lambda name, port: [str(found[4][0]) for found in socket.getaddrinfo(name, port)],
            allow_private=False,
        )
        assert answer.error
        assert answer.status_code is None
    assert receiver.received.empty()


def test_a_name_that_leads_elsewhere_a_moment_later(receiver: Receiver) -> None:
    """It is looked up once: what was checked is what is connected to."""
    with receiving(Receiver(port=receiver.port), host="127.0.0.2") as inside:
        answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]
        answer = send(f"http://rebinding.example:{receiver.port}/", resolve=lambda host, port: answers.pop(0))
        assert answer.status_code == 200
        assert len(answers) == 2
        assert inside.received.empty()
    receiver.next()


def test_the_next_address_is_tried_where_one_is_dead(receiver: Receiver) -> None:
    answer = send(f"http://hooks.internal:{receiver.port}/", resolve=lambda host, port: ["127.0.0.3", "127.0.0.1"])
    assert answer.status_code == 200


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    with receiving(Receiver()) as inside:
        for code in (301, 302, 303, 307, 308):
            receiver.answer = status(code, location=inside.url)
            answer = send(receiver.url)
            assert answer.error == f"it answered {code}, a redirect, which is not followed"
        assert inside.received.empty()


@pytest.mark.parametrize("code", [199 + 5, 400, 404, 410, 429, 500, 503])
def test_only_2xx_counts(receiver: Receiver, code: int) -> None:
    receiver.answer = status(code)
    answer = send(receiver.url)
    assert (answer.status_code, answer.error is None) == (code, code < 300)


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(Receiver()) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert send(receiver.url).status_code == 200
        assert proxy.received.empty()


def test_who_never_answers(receiver: Receiver) -> None:
    receiver.answer = lambda handler: receiver.ending.wait()  # type: ignore[assignment, return-value]
    answer = send(receiver.url, total_seconds=0.5)
    assert (answer.status_code, answer.error) == (None, "it did not answer within 0.5 seconds")


def test_who_answers_a_letter_at_a_time(receiver: Receiver) -> None:
    """Each comes before a time limit for reads would be up; the whole has one of its own."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        for letter in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000:
            handler.wfile.write(bytes([letter]))
            handler.wfile.flush()
            if receiver.ending.wait(0.01):
                return

    receiver.answer = drip
    answer = send(receiver.url, total_seconds=0.5)
    assert (answer.status_code, answer.error) == (None, "it did not answer within 0.5 seconds")
    assert answer.seconds < 60


def test_who_answers_without_end(receiver: Receiver) -> None:
    """The status is what counts. Little of the rest is read, and it is not waited for."""
    sent = 0
    hung_up = threading.Event()

    def flood(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        try:
            while not receiver.ending.is_set():
                sent += handler.wfile.write(b"x" * 65536)
        except OSError:
            hung_up.set()

    receiver.answer = flood
    assert send(receiver.url).status_code == 200
    assert hung_up.wait(60)
    assert sent < 64 * 1024 * 1024  # what fits into the system's own buffers; the sender took a thousandth


@pytest.mark.parametrize(
    ("first", "again"),
    [(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")],
    ids=["of one answer", "of interim answers"],
)
def test_a_head_without_end(receiver: Receiver, first: bytes, again: bytes) -> None:
    hung_up = threading.Event()

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(first)
        try:
            while not receiver.ending.is_set():
                handler.wfile.write(again * 1000)
        except OSError:
            hung_up.set()

    receiver.answer = flood
    answer = send(receiver.url)
    assert (answer.status_code, answer.error) == (None, "64 KiB of its answer had no status that counts")
    assert hung_up.wait(60)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", "what answers is not HTTP"),
        (b"220 mail.example.com ESMTP\r\n", "what answers is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", None),
    ],
)
def test_who_speaks_something_else(receiver: Receiver, said: bytes, error: str | None) -> None:
    def say(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(said)
        handler.close_connection = True

    receiver.answer = say
    assert send(receiver.url).error == error


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        answer = send(f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert (answer.status_code, answer.error) == (None, "no connection came about")


def test_a_name_that_is_not_known() -> None:
    def fail(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert send("https://nowhere.invalid/", resolve=fail).error == NO_ADDRESS


def test_a_name_server_that_never_answers() -> None:
    done = threading.Event()

    def wait(host: str, port: int) -> list[str]:
        done.wait()
        return ["127.0.0.1"]

    try:
        answer = send("https://slow.example.com/", resolve=wait, total_seconds=0.3)
    finally:
        done.set()
    assert answer.error == "it did not answer within 0.3 seconds"


def test_a_name_server_that_never_answers_holds_up_no_process_at_its_end() -> None:
    program = """
import asyncio, threading
from api.webhooks.sender import Sender
from registry.webhooks import Delivery

async def main():
    sender = Sender(allow_private=False, resolve=lambda host, port: threading.Event().wait(), total_seconds=0.1)
    print((await sender.send(Delivery("wh_1", "webhook-1", 1, "https://slow.example.com/", b"", ()))).error)
    await sender.close()

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "it did not answer within 0.1 seconds\n"


def test_an_address_for_a_host() -> None:
    """As the system reads it; an IPv6 one where the machine has that."""
    hosts = ["127.0.0.1"]
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        hosts.append("[::1]")
    for host in hosts:
        with receiving(Receiver(), host=host.strip("[]")) as receiver:
            answer = send(f"http://{host}:{receiver.port}/", resolve=resolve)
            assert (answer.status_code, answer.error) == (200, None)
            assert receiver.next().headers["host"] == f"{host}:{receiver.port}"
