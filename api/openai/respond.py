"""The way of a request for text through this door."""

from typing import Literal

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.generate.generation import new_id, run
from api.generate.stickiness import sticky_key
from api.generate.target import resolve_model
from api.openai.answers import Answer
from api.openai.chat.schemas import ChatRequest
from api.openai.completions.schemas import CompletionRequest
from api.services import Services
from registry.tenants import Principal


async def respond(
    shape: type[Answer],
    prefix: Literal["chatcmpl-", "cmpl-"],
    body: ChatRequest | CompletionRequest,
    request: Request,
    services: Services,
    principal: Principal,
) -> Response:
    """The native answer in this shape, under an id with this prefix."""
    key = await sticky_key(request, *body.users)
    target = await run_in_threadpool(resolve_model, services.registry, principal, body.model, key)
    answer = shape(new_id(prefix), body.model, with_usage=body.with_usage)
    native = await run(services, principal, request, target, body.to_generate(target), answer.id)
    return answer.translate(native, body.n)
