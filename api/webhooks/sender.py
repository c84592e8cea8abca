"""Sends one webhook: to an address that was looked up once and checked, within bounds of time and size.

The connection goes to the very address that was checked, so a name that stands for another one a moment later leads
nowhere else; TLS still asks for the certificate of the name. Redirects are not followed, no proxy of the environment is
used, and of an answer only its status counts.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import httpx

from api.webhooks.network import BoundedTransport, TooManyBytesError
from registry.errors import InvalidRequest
from registry.webhooks import Answer, Delivery, destination
from registry.webhooks.destination import Destination, ForbiddenAddressError, IpAddress
from registry.webhooks.secrets import sign

TOTAL_SECONDS = 15.0
"""For all of an attempt, from the look-up of the name to the end of the answer's head."""
_CONNECT_SECONDS = 5.0
_MOST_ADDRESSES = 4
_MOST_BYTES = 64 * 1024
"""Of an answer, head and body."""
_LISTEN_SECONDS = 1.0
_LONGEST_REASON = 200

Resolve = Callable[[str, int], Sequence[str]]
"""From a host's name and port to its addresses. Raises OSError."""


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that the system knows for a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Sender:
    """Sends webhooks. `verify` is whose certificates are trusted, the usual authorities' unless said otherwise."""

    def __init__(
        self,
        *,
        allow_private: bool,
        resolve: Resolve = resolve,
        verify: ssl.SSLContext | None = None,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._total_seconds = total_seconds
        self._http = httpx.AsyncClient(
            transport=BoundedTransport(httpx.create_ssl_context() if verify is None else verify, _MOST_BYTES),
            timeout=httpx.Timeout(total_seconds, connect=_CONNECT_SECONDS),
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def send(self, delivery: Delivery) -> Answer:
        """One attempt at a delivery. Raises nothing that a receiver could cause."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._total_seconds):
                response = await self._send(delivery)
        except Exception as raised:
            return Answer(time.monotonic() - started, error=_reason(raised, self._total_seconds))
        answer = Answer(time.monotonic() - started, response.status_code, _objection(response.status_code))
        await _dismiss(response)
        return answer

    async def _send(self, delivery: Delivery) -> httpx.Response:
        # Once more: the setting may be another than when the URL was stored.
        where = destination.parse(delivery.url, allow_private=self._allow_private)
        addresses = await self._addresses(where)
        for address in addresses[:-1]:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._post(delivery, where, address)
        return await self._post(delivery, where, addresses[-1])

    async def _addresses(self, where: Destination) -> list[IpAddress]:
        """The addresses to try. One that is forbidden forbids all: an honest name has none."""
        found = await _aside(lambda: self._resolve(where.host, where.port))
        addresses = [ipaddress.ip_address(address) for address in found]
        for address in addresses:
            destination.check_address(address, allow_private=self._allow_private)
        return addresses[:_MOST_ADDRESSES]

    async def _post(self, delivery: Delivery, where: Destination, address: IpAddress) -> httpx.Response:
        timestamp = int(time.time())
        signatures = (sign(secret, delivery.id, timestamp, delivery.body) for secret in delivery.secrets)
        request = self._http.build_request(
            "POST",
            httpx.URL(scheme=where.scheme, host=str(address), port=where.port, raw_path=where.target.encode("ascii")),
            content=delivery.body,
            headers={
                "host": where.authority,
                "user-agent": f"Osora/{version('osora')}",
                "accept-encoding": "identity",
                "connection": "close",
                "content-type": "application/json",
                "webhook-id": delivery.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": " ".join(signatures),
            },
            extensions={"sni_hostname": where.host},
        )
        return await self._http.send(request, stream=True, follow_redirects=False)


async def _aside(look_up: Callable[[], Sequence[str]]) -> Sequence[str]:
    """What a function returns or raises, on a thread of its own.

    A name server may take its time: the loop's own threads, with which others look up names, should not wait for it,
    nor should the end of the process.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str]] = loop.create_future()

    def tell(addresses: Sequence[str] | None, error: Exception | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(addresses or ())

    def run() -> None:
        addresses: Sequence[str] | None = None
        failure: Exception | None = None
        try:
            addresses = look_up()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(tell, addresses, failure)

    threading.Thread(target=run, name="webhook-name", daemon=True).start()
    return await found


async def _dismiss(response: httpx.Response) -> None:
    """Hears a short answer out, so that its receiver gets rid of it, and hangs up on a long one.

    Whatever comes of that, the status has been heard.
    """
    with contextlib.suppress(httpx.HTTPError, TooManyBytesError, TimeoutError):
        async with asyncio.timeout(_LISTEN_SECONDS):
            async for _ in response.aiter_raw():
                pass
    with contextlib.suppress(httpx.HTTPError, OSError):
        await response.aclose()


def _objection(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"it answered {status}, a redirect, which is not followed"
    return f"it answered {status}"


def _reason(raised: Exception, total_seconds: float) -> str:
    match raised:
        case TimeoutError() | httpx.TimeoutException():
            return f"it did not answer within {total_seconds:g} seconds"
        case TooManyBytesError():
            return f"{_MOST_BYTES // 1024} KiB of its answer had no status that counts"
        case InvalidRequest():
            return raised.message
        case ForbiddenAddressError() | OSError() | UnicodeError():
            # The same for both: who may ask us for any name must not learn which ones only we can resolve.
            return "its host's name is not known, or leads to an address that is not a public one"
        case httpx.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(raised):
            return f"its certificate is not accepted: {_certificate_problem(raised)}"
        case httpx.ConnectError():
            return "no TLS came about" if "SSL" in str(raised) else "no connection came about"
        case httpx.RemoteProtocolError():
            return "what answers is not HTTP"
        case httpx.HTTPError():
            return "the connection broke off"
        case _:
            return f"it could not be sent ({type(raised).__name__})"


def _certificate_problem(raised: httpx.ConnectError) -> str:
    """What OpenSSL says, without where in its source it says so."""
    return str(raised).partition("failed: ")[2].partition(" (_ssl")[0][:_LONGEST_REASON]
