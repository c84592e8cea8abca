"""One generation, whichever door it is asked for through."""

from functools import partial
from typing import Literal
from uuid import uuid4

from fastapi import Request
from fastapi.responses import Response

from api.generate.proxy import pass_on
from api.generate.schemas import GenerateRequest
from api.services import Services
from registry.references import Target
from registry.tenants import Principal


def new_id(prefix: Literal["gen-", "chatcmpl-", "cmpl-", "resp_", "msg_"]) -> str:
    """The name of one generation."""
    return f"{prefix}{uuid4().hex}"


async def run(
    services: Services,
    principal: Principal,
    request: Request,
    target: Target,
    body: GenerateRequest,
    generation_id: str,
) -> Response:
    """An inference server's answer as it gives it: a `Generation`, its stream, or an error."""
    payload = {"request_id": generation_id, "tenant": principal.tenant_id, **target.payload(), **body.options()}
    # An adapter stays where it is warm; the bare base is warm everywhere, so its requests spread.
    key = target.adapter.id if target.adapter else generation_id
    ask = partial(services.gateway.ask, "/generate", payload, key, request.state.request_id)
    return await pass_on(request, ask, services.revocations.watch(principal))
