"""Who attacks: an HTTP client with a tenant's key, and connections that keep to no protocol."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

ROW = {"messages": [{"role": "user", "content": "Which city?"}, {"role": "assistant", "content": "Oslo"}]}

_LOOK_SECONDS = 0.5


def rows_of(row: Mapping[str, Any], count: int) -> bytes:
    """A training file that says the same again and again."""
    return (json.dumps(row) + "\n").encode() * count


class Attacker:
    """What strikes share: the address, the key, and how often which answer came."""

    def __init__(self, url: str, key: str, base: str) -> None:
        self.url = url
        self.key = key
        self.base = base
        self.answers: Counter[str] = Counter()
        self.made: dict[str, str] = {}
        """Ids of what `prepare` has made, by kind."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self.http = httpx.AsyncClient(base_url=url, limits=limits, timeout=120, trust_env=False)
        self.headers = {"authorization": f"Bearer {key}"}
        self._number = 0

    def number(self) -> int:
        """Another one each time: what is asked for is in no cache."""
        self._number += 1
        return self._number

    async def ask(self, method: str, path: str, *, keyless: bool = False, **request: Any) -> httpx.Response:
        """A request; its answer is counted, whatever it is."""
        headers = {**({} if keyless else self.headers), **request.pop("headers", {})}
        try:
            response = await self.http.request(method, path, headers=headers, **request)
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1
            raise
        self.answers[str(response.status_code)] += 1
        return response

    async def post(self, path: str, body: bytes | Mapping[str, Any], *, keyless: bool = False) -> httpx.Response:
        """A JSON body, ready-made where its making would take the attacker's own time."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask(
            "POST", path, content=content, headers={"content-type": "application/json"}, keyless=keyless
        )

    async def stream(self, path: str, body: Mapping[str, Any], *, pieces: int | None = None) -> None:
        """A request whose answer is read as it comes; after so many pieces the connection is cut."""
        async with self.http.stream("POST", path, json=body, headers=self.headers) as response:
            self.answers[str(response.status_code)] += 1
            count = 0
            async for _ in response.aiter_raw():
                count += 1
                if pieces is not None and count >= pieces:
                    return

    async def upload(self, content: bytes, filename: str = "rows.jsonl") -> str:
        """A training file's id."""
        response = await self.ask(
            "POST", "/files", data={"purpose": "fine-tune"}, files={"file": (filename, content, "text/jsonl")}
        )
        return str(response.raise_for_status().json()["id"])

    async def sweep(self) -> None:
        """Cancels what an attack before this one has left: its jobs would wait behind those."""
        for status in ("running", "queued", "paused"):
            while jobs := (await self.ask("GET", f"/jobs?status={status}&limit=100")).raise_for_status().json()["data"]:
                for job in jobs:
                    await self.ask("POST", f"/jobs/{job['id']}/cancel")
                await asyncio.sleep(_LOOK_SECONDS)

    @asynccontextmanager
    async def connected(
        self, receives: int | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection; `receives` is how many bytes the kernel takes before anybody reads."""
        parts = urlsplit(self.url)
        made = socket.socket()
        made.setblocking(False)
        if receives is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        await asyncio.get_running_loop().sock_connect(made, (parts.hostname, parts.port))
        reader, writer = await asyncio.open_connection(sock=made, limit=receives or 2**16)
        try:
            yield reader, writer
        finally:
            # What is not sent by now never is: a client that is gone. `close` would wait for it, beyond the loop's end.
            writer.transport.abort()
            await asyncio.sleep(0)

    def head(self, method: str, path: str, *, length: int | None = None, keyless: bool = False) -> bytes:
        """A request's lines before its body."""
        lines = [f"{method} {path} HTTP/1.1", "host: attacked", "content-type: application/json"]
        lines += [] if keyless else [f"authorization: Bearer {self.key}"]
        lines += [] if length is None else [f"content-length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode()
