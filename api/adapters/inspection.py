"""Asking an inference server what an adapter from outside is, before anybody can call it."""

from typing import Any

import httpx
from fastapi import Request

from api.gateway import close
from api.services import Services
from osora_common.disconnect import unless_gone
from registry.adapter_imports import Draft, Facts
from registry.errors import Conflict, InvalidRequest, OsoraError, RateLimited, Unavailable
from registry.tenants import Principal


async def inspected(services: Services, request: Request, principal: Principal, draft: Draft) -> Facts:
    """What the adapter is, from a server that has laid it out and asked it.

    Raises `InvalidRequest` or `Conflict`, with the server's words, for one that is not to be served, and `Unavailable`
    where none can say.
    """
    payload = {
        "tenant": principal.tenant_id,
        "base": draft.base,
        "object_key": draft.object_key,
        "sha256": draft.sha256,
    }

    async def ask() -> tuple[int, dict[str, Any]]:
        response = await services.gateway.ask("/inspect", payload, draft.id, request.state.request_id)
        try:
            await response.aread()
            return response.status_code, response.json()
        except (httpx.TransportError, ValueError) as error:
            raise _unavailable("the inference server broke off") from error
        finally:
            await close(response)

    answer = await unless_gone(request, ask)
    if answer is None:
        raise _unavailable("the client has left")
    status, body = answer
    if status == 200:
        return Facts(**body)
    raise _refusal(status, body.get("error"))


def _refusal(status: int, error: object) -> OsoraError:
    found = error if isinstance(error, dict) else {}
    message, next_action = str(found.get("message", "")), found.get("next_action")
    if status == 400:
        return InvalidRequest(message, param="file", code="invalid_adapter", next_action=next_action)
    if status == 409:
        return Conflict(message, param="file", code=found.get("code"), next_action=next_action)
    if status == 429:
        return RateLimited(message, code=found.get("code"), next_action=next_action, retry_after=1)
    return _unavailable(message or "the inference server cannot look at adapters now")


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, code="inference_unavailable", next_action="send the adapter again in a moment")
