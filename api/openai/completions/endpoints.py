"""The continuation of a prompt."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.deps import GeneratorDep, ServicesDep
from api.generate.doors import respond
from api.json_body import JsonRoute
from api.openai.completions.answer import CompletionAnswer
from api.openai.completions.schemas import CHUNKS_EXAMPLE, CompletionRequest
from api.schemas import errors

router = APIRouter(prefix="/v1/completions", route_class=JsonRoute)


@router.post(
    "",
    summary="Continue a prompt",
    responses={
        200: {"content": {"text/event-stream": {"example": CHUNKS_EXAMPLE}}},
        **errors(400, 401, 403, 404, 429, 503),
    },
)
async def create_completion(
    body: CompletionRequest, request: Request, services: ServicesDep, principal: GeneratorDep
) -> Response:
    """What `POST /generate` does with a `prompt`, in OpenAI's shape. Receipt and timing are under `osora`."""
    return await respond(CompletionAnswer.to(body), body, request, services, principal)
