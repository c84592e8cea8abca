"""The Python SDK.

    from osora import Osora

    osora = Osora()                                   # finds a running `osora serve` by itself
    data = osora.files.upload("tickets.jsonl")
    job = osora.jobs.create("osora-tiny", data["id"], suffix="tickets")
    for event in osora.jobs.events(job["id"]):        # until the job has ended
        print(event["message"])
    adapter_id = osora.jobs.get(job["id"])["osora"]["adapter_id"]
    print(osora.generate("My parcel is late.", adapter=adapter_id)["text"])

`AsyncOsora` has the same methods, to be awaited; what is iterated, it iterates with `async for`.

Objects are dictionaries as the service sends them (types: `osora.schemas`). Failures raise `OsoraAPIError`
(the service said no) or `OsoraConnectionError` (there was no service, or no whole answer).
"""

from typing import Self

import httpx

from osora.discovery import discover
from osora.retries import MOST_RETRIES
from osora.sdk.endpoint import Async, Sync
from osora.sdk.service import Service
from osora.sdk.transport import AsyncTransport, Transport, timeout_of


class Osora(Service[Sync]):
    """A client of one Osora service. Thread-safe.

    Args:
        base_url: the service's URL; default `OSORA_URL`, then the local `osora serve`, then port 8000 here.
        api_key: default `OSORA_API_KEY`, then, for a service on this machine only, its local key.
        timeout: seconds without an answer until a call fails; default 600, and 5 to connect.
        max_retries: so often a call that failed for a passing reason is sent again.
        http_client: a client of your own, for proxies, certificates or tests; you close it.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float | httpx.Timeout | None = None,
        max_retries: int = MOST_RETRIES,
        http_client: httpx.Client | None = None,
    ) -> None:
        transport = Transport(discover(base_url, api_key), max_retries, timeout_of(timeout), http_client)
        super().__init__(transport)
        self.close = transport.close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncOsora(Service[Async]):
    """A client of one Osora service for asyncio. Its arguments are those of `Osora`."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float | httpx.Timeout | None = None,
        max_retries: int = MOST_RETRIES,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        transport = AsyncTransport(discover(base_url, api_key), max_retries, timeout_of(timeout), http_client)
        super().__init__(transport)
        self.aclose = transport.aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
