"""One generation, whichever door it is asked for through."""

from functools import partial
from typing import Literal, cast
from uuid import uuid4

from fastapi import Request
from fastapi.responses import Response

from api.generate.proxy import pass_on
from api.generate.schemas import GenerateRequest
from api.limits.metering import within_limits
from api.services import Services
from registry.references import Target
from registry.tenants import Principal
from registry.usage import Kind

Prefix = Literal["gen-", "chatcmpl-", "cmpl-", "resp_", "msg_"]


# A door by what the names of its generations begin with.
_KINDS: dict[Prefix, Kind] = {
    "gen-": "generate",
    "chatcmpl-": "chat",
    "cmpl-": "completions",
    "resp_": "responses",
    "msg_": "messages",
}
_RANDOM_LENGTH = 32


def new_id(prefix: Prefix) -> str:
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
    kind = _KINDS[cast(Prefix, generation_id[:-_RANDOM_LENGTH])]
    who = {"tenant": principal.tenant_id, "key": principal.key_id, "kind": kind}
    payload = {"request_id": generation_id, **who, **target.payload(), **body.options()}
    # An adapter stays where it is warm; the bare base is warm everywhere, so its requests spread.
    key = target.adapter.id if target.adapter else generation_id
    ask = partial(services.gateway.ask, "/generate", payload, key, request.state.request_id)
    answer = partial(pass_on, request, ask, services.revocations.watch(principal))
    return await within_limits(services, principal, request, payload, answer)
