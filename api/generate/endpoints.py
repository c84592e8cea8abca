"""Text from an adapter or a base."""

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.deps import GeneratorDep, ServicesDep
from api.generate.generation import new_id, run
from api.generate.schemas import STREAM_EXAMPLE, GenerateRequest, Generation
from api.generate.stickiness import sticky_key
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
async def generate(body: GenerateRequest, request: Request, services: ServicesDep, principal: GeneratorDep) -> Response:
    """Continues a prompt or a conversation. With `stream`, tokens come one by one. Disconnecting cancels."""
    key = await sticky_key(request, body.user)
    target = await run_in_threadpool(resolve, services.registry, principal, body, key)
    return await run(services, principal, request, target, body, new_id("gen-"))
