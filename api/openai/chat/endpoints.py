"""An assistant's next message."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.deps import GeneratorDep, ServicesDep
from api.generate.doors import respond
from api.json_body import JsonRoute
from api.openai.chat.answer import ChatAnswer
from api.openai.chat.schemas import CHUNKS_EXAMPLE, ChatRequest
from api.schemas import errors

router = APIRouter(prefix="/v1/chat/completions", route_class=JsonRoute)


@router.post(
    "",
    summary="Continue a chat",
    responses={
        200: {"content": {"text/event-stream": {"example": CHUNKS_EXAMPLE}}},
        **errors(400, 401, 403, 404, 429, 503),
    },
)
async def create_chat_completion(
    body: ChatRequest, request: Request, services: ServicesDep, principal: GeneratorDep
) -> Response:
    """What `POST /generate` does with `messages`, in OpenAI's shape. Receipt and timing are under `osora`."""
    return await respond(ChatAnswer.to(body), body, request, services, principal)
