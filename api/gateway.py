"""The way to the inference servers: which one, and which next when it is not there."""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx

from registry.errors import Unavailable

_PROBE_TIMEOUT = httpx.Timeout(2)
_BASES_SECONDS = 2
_BUSY = (429, 503)


async def close(response: httpx.Response) -> None:
    """Gives a response's connection back, also while the task is being cancelled."""
    with anyio.CancelScope(shield=True):
        await response.aclose()


class InferenceGateway:
    """Chooses among inference servers by rendezvous hash, so that each adapter stays warm in one place."""

    def __init__(self, urls: list[str], token: str, http: httpx.AsyncClient) -> None:
        self._urls = urls
        self._http = http
        # Bytes pass through untouched, so they must not come compressed.
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._bases: list[dict[str, Any]] = []
        self._bases_until = 0.0

    @property
    def urls(self) -> Sequence[str]:
        """Those of all servers."""
        return self._urls

    def ranked(self, key: str) -> list[str]:
        """The servers in this key's order; losing one moves only the keys that it was first for."""
        return sorted(self._urls, key=lambda url: hashlib.sha256(f"{url} {key}".encode()).digest())

    async def ask(self, path: str, payload: Mapping[str, Any], key: str, request_id: str) -> httpx.Response:
        """The answer of the first server that gives one, its body unread; the caller closes it.

        A server that cannot be reached, breaks off before it answers, or says 429 or 503 is passed over: nothing has
        reached the client yet, and what is asked there changes nothing. If all say so, the last answer is returned.

        Raises:
            Unavailable: no server answered.
        """
        async with AsyncExitStack() as kept:
            refusal: httpx.Response | None = None
            for url in self.ranked(key):
                response = await self._send(f"{url}{path}", payload, request_id)
                if response is None:
                    continue
                if response.status_code not in _BUSY:
                    return response
                await kept.aclose()  # of the one before
                kept.push_async_callback(close, response)
                refusal = response
            if refusal is not None:
                kept.pop_all()
                return refusal
        raise Unavailable(
            "no inference server answers",
            code="inference_unavailable",
            next_action="try again in a moment; GET /ready says what is down",
        )

    async def _send(self, url: str, payload: Mapping[str, Any], request_id: str) -> httpx.Response | None:
        headers = {**self._headers, "x-request-id": request_id}
        request = self._http.build_request("POST", url, json=payload, headers=headers)
        try:
            return await self._http.send(request, stream=True)
        except httpx.ReadTimeout:
            raise Unavailable(
                "the inference server took too long",
                code="inference_timeout",
                next_action="ask for less at once, such as fewer tokens",
            ) from None
        except httpx.TransportError:
            return None

    async def take_usage(self, url: str, acknowledged: Mapping[str, int]) -> Any:
        """What a server has recorded and nobody has acknowledged; None if it does not say."""
        try:
            response = await self._http.post(
                f"{url}/usage/take",
                json={"acknowledged": acknowledged},
                headers=self._headers,
                timeout=_PROBE_TIMEOUT,
            )
            return response.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return None

    async def bases(self) -> list[dict[str, Any]]:
        """The bases that the servers hold, each once, two seconds old at most; silent servers left out."""
        if time.monotonic() < self._bases_until:
            return self._bases
        answers = await asyncio.gather(*(self._get(f"{url}/bases") for url in self._urls))
        found = (base for answer in answers if answer is not None for base in answer["data"])
        self._bases = list({base["name"]: base for base in found}.values())
        self._bases_until = time.monotonic() + _BASES_SECONDS
        return self._bases

    async def added_bases(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What each server says of the bases that it was told to add, by name; silent servers left out."""
        answers = await asyncio.gather(*(self._get(f"{url}/bases") for url in self._urls))
        return {
            url: {base["name"]: base for base in answer.get("added", [])}
            for url, answer in zip(self._urls, answers, strict=True)
            if answer is not None
        }

    async def tell(self, url: str, path: str, body: Mapping[str, Any]) -> None:
        """Tells one server something. Raises `httpx.HTTPError` if it does not take it."""
        answer = await self._http.post(f"{url}{path}", json=body, headers=self._headers, timeout=_PROBE_TIMEOUT)
        answer.raise_for_status()
        self._bases_until = 0.0

    async def loads(self) -> dict[str, list[dict[str, Any]] | None]:
        """How much each server has to do, by base; None for a silent one."""
        answers = await asyncio.gather(*(self._get(f"{url}/load") for url in self._urls))
        return {url: answer and answer["data"] for url, answer in zip(self._urls, answers, strict=True)}

    async def held_adapters(self) -> dict[str, list[str]]:
        """The ids of the adapters that each server has in memory; silent servers left out."""
        answers = await asyncio.gather(*(self._get(f"{url}/adapters") for url in self._urls))
        return {url: answer["data"] for url, answer in zip(self._urls, answers, strict=True) if answer is not None}

    async def forget(self, url: str, adapters: Sequence[str]) -> None:
        """Has a server let go of adapters. Raises `httpx.HTTPError` if it does not answer."""
        await self.tell(url, "/forget", {"adapters": adapters})

    async def ready(self) -> int:
        """How many servers are ready."""
        return sum([answer is not None for answer in await asyncio.gather(*map(self._ready, self._urls))])

    async def _ready(self, url: str) -> Any:
        return await self._get(f"{url}/ready")

    async def _get(self, url: str) -> Any:
        try:
            response = await self._http.get(url, headers=self._headers, timeout=_PROBE_TIMEOUT)
            return response.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return None
