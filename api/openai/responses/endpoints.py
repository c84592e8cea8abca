"""Responses, of which none is stored."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.deps import GeneratorDep, ServicesDep
from api.generate.doors import respond
from api.json_body import JsonRoute
from api.openai.responses.answer import ResponseAnswer
from api.openai.responses.schemas import EVENTS_EXAMPLE, ResponseRequest
from api.schemas import errors

router = APIRouter(prefix="/v1/responses", route_class=JsonRoute)


@router.post(
    "",
    summary="Make a response",
    responses={
        200: {"content": {"text/event-stream": {"example": EVENTS_EXAMPLE}}},
        **errors(400, 401, 403, 404, 429, 503),
    },
)
async def create_response(
    body: ResponseRequest, request: Request, services: ServicesDep, principal: GeneratorDep
) -> Response:
    """What `POST /generate` does with `messages`, in the shape of OpenAI's Responses. Nothing is stored."""
    return await respond(ResponseAnswer(body), body, request, services, principal)
