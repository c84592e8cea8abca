"""An assistant's next message, for those who speak Anthropic's API."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.anthropic.answer import MessageAnswer
from api.anthropic.errors import PATH
from api.anthropic.schemas import EVENTS_EXAMPLE, MessageRequest
from api.deps import GeneratorDep, ServicesDep
from api.generate.doors import respond
from api.json_body import JsonRoute
from api.schemas import errors

router = APIRouter(prefix=PATH, route_class=JsonRoute)


@router.post(
    "",
    summary="Continue a conversation",
    responses={
        200: {"content": {"text/event-stream": {"example": EVENTS_EXAMPLE}}},
        **errors(400, 401, 403, 404, 429, 503),
    },
)
async def create_message(
    body: MessageRequest, request: Request, services: ServicesDep, principal: GeneratorDep
) -> Response:
    """What `POST /generate` does with `messages`, in Anthropic's shape, that of errors too."""
    return await respond(MessageAnswer(body.model), body, request, services, principal)
