"""Text from an adapter or a base."""

from functools import partial
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.deps import ReaderDep, ServicesDep
from api.generate.proxy import pass_on
from api.generate.schemas import STREAM_EXAMPLE, GenerateRequest, Generation
from api.generate.target import resolve
from api.json_body import JsonRoute
from api.schemas import errors

router = APIRouter(prefix="/generate", tags=["generate"], route_class=JsonRoute)


@router.post(
    "",
    summary="Generate text",
    response_model=Generation,
    responses={
        200: {"content": {"text/event-stream": {"example": STREAM_EXAMPLE}}},
        **errors(400, 401, 403, 404, 429, 503),
    },
)
async def generate(body: GenerateRequest, request: Request, services: ServicesDep, principal: ReaderDep) -> Response:
    """Continues a prompt or a conversation. With `stream`, tokens come one by one. Disconnecting cancels."""
    target = await run_in_threadpool(resolve, services.registry, principal, body)
    generation_id = f"gen-{uuid4().hex}"
    payload = {"request_id": generation_id, "tenant": principal.tenant_id, **target.payload(), **body.options()}
    # An adapter stays where it is warm; the bare base is warm everywhere, so its requests spread.
    key = target.adapter.id if target.adapter else generation_id
    ask = partial(services.gateway.ask, "/generate", payload, key, request.state.request_id)
    return await pass_on(request, ask)
