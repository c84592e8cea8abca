"""A generation within its limits: what it may use is reserved, and settled by what its answer says it has used."""

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.generate.proxy import PassedOn
from api.limits.headers import standing_headers
from api.limits.service import Reserved
from api.services import Services
from osora_common.disconnect import CLIENT_GONE
from registry.errors import OsoraError
from registry.tenants import Principal

# A quote inside a string of the answer would be escaped, so no generated text can look like this.
_USAGE = re.compile(rb'"usage":\s*\{"prompt_tokens":\s*(\d+),\s*"completion_tokens":\s*(\d+)')
_TOKEN = b"event: token"
_OVERLAP = 256
_LONGEST = 128 * 1024
"""Tokens that a base may read, as long as no server says."""


async def within_limits(
    services: Services,
    principal: Principal,
    request: Request,
    payload: Mapping[str, Any],
    answer: Callable[[], Awaitable[Response]],
) -> Response:
    """The answer to a request for text, with the headers that say what is left. Raises `RateLimited`."""
    longest = await _longest(services, payload["base"])
    prompt_tokens = most_prompt_tokens(payload, longest)
    tokens = prompt_tokens + most_new_tokens(payload, longest)
    async with AsyncExitStack() as held:
        reserved = await held.enter_async_context(services.limits.generation(principal, tokens))
        try:
            response = await answer()
        except OsoraError:
            reserved.used = 0
            raise
        streams = isinstance(response, PassedOn)
        if not streams:
            _settle(reserved, response)
            await held.aclose()
        standings = await services.limits.standings(reserved.owners)
        response.headers.update(standing_headers(request.url.path, standings))
        if isinstance(response, PassedOn):
            response.body_iterator = _counted(response.body_iterator, reserved, prompt_tokens)
            response.held = held.pop_all()
        return response


def most_prompt_tokens(payload: Mapping[str, Any], longest: int) -> int:
    """An upper bound of what is read: each token is a byte of the text at least, or of what stands around it."""
    prompt = payload.get("prompt")
    if prompt is None:
        text = json.dumps([payload.get("messages"), payload.get("tools")], ensure_ascii=False)
        return min(longest, _bytes(text))
    return sum(min(longest, _bytes(one) if isinstance(one, str) else len(one)) for one in _each(prompt))


def most_new_tokens(payload: Mapping[str, Any], longest: int) -> int:
    """An upper bound of what is written."""
    answers = int(payload.get("n", 1)) * len(_each(payload.get("prompt") or ""))
    return answers * min(longest, int(payload["max_tokens"]))


def _each(prompt: Any) -> list[Any]:
    return prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


async def _longest(services: Services, base: str) -> int:
    """Tokens that the base reads and writes at most."""

    async def ask() -> int:
        bases = await services.gateway.bases()
        return next((found.get("max_length") for found in bases if found["name"] == base), None) or _LONGEST

    return await services.limits.longest.get(base, ask)


def _settle(reserved: Reserved, response: Response) -> None:
    if response.status_code >= 400 and response.status_code != CLIENT_GONE:
        reserved.used = 0
    elif (found := _USAGE.search(bytes(response.body))) is not None:
        reserved.used = sum(map(int, found.groups()))


async def _counted(pieces: AsyncIterable[Any], reserved: Reserved, prompt_tokens: int) -> AsyncIterator[Any]:
    """The pieces of a stream. What it has used it says at its end; one that is broken off has used what came."""
    reserved.used = prompt_tokens
    rest = b""
    async for piece in pieces:
        seen = rest + piece
        reserved.used += seen.count(_TOKEN) - rest.count(_TOKEN)
        if (found := _USAGE.search(seen)) is not None:
            reserved.used = sum(map(int, found.groups()))
        rest = seen[-_OVERLAP:]
        yield piece
