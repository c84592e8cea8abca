"""What OpenAI's API has and this one does not: each path says what to use instead.

docs/migrate-from-openai.md shows the same table; a test holds the two together, and against the client's own paths.
"""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from registry.errors import NotFound

_TEXT = "only text is read and written"
_NO_AGENTS = "keep the conversation, and send it to /v1/responses, with `tools` for what it may call"
_NO_MODERATION = "train a model that sorts texts, and call it with `text.format` for its verdict"
_NO_SANDBOX = "nothing runs here: give `tools` to /v1/responses and run them yourself"
_NO_SEARCH = "there is no search: put what you found into the conversation"
_SPOKEN = f"{_TEXT}; /v1/responses with `stream` answers as it goes"
_KEYS = "keys are at /keys, usage is at /usage, and settings belong to whoever runs the service"

REFUSALS = {
    "responses/": "responses are not stored: keep what POST /v1/responses answers; its `usage` counts the tokens",
    "chat/completions/": "chats are not stored: keep what POST /v1/chat/completions answers",
    "messages/": "batches and counts of tokens are not had: `usage` of what POST /v1/messages answers has the count",
    "conversations": "conversations are not stored: send their items as `input` of POST /v1/responses",
    "fine_tuning/alpha": "there are no graders: the methods are supervised and dpo, and a validation file is scored",
    "evals": "give a job a `validation_file`: its events and its result file have the scores",
    "batches": "send the requests one by one, many at a time: they are computed together",
    "embeddings": "keep the model that makes your vectors: only text is generated here",
    "moderations": _NO_MODERATION,
    "decisions": _NO_MODERATION,
    "safety": _NO_MODERATION,
    "content_provenance_checks": _TEXT,
    "assistants": _NO_AGENTS,
    "threads": _NO_AGENTS,
    "agents": _NO_AGENTS,
    "chatkit": _NO_AGENTS,
    "vector_stores": _NO_SEARCH,
    "containers": _NO_SANDBOX,
    "skills": _NO_SANDBOX,
    "vaults": _NO_SANDBOX,
    "images": _TEXT,
    "videos": _TEXT,
    "audio": _SPOKEN,
    "realtime": _SPOKEN,
    "live": _SPOKEN,
    "organization": _KEYS,
    "projects": _KEYS,
}
"""Paths under /v1, each with all that lies below it. A slash at the end: what is at the path itself is there, and only
its list is not."""

_ALL = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

router = APIRouter(prefix="/v1", include_in_schema=False)


async def refuse(request: Request) -> Response:
    """Raises `NotFound`, as a path that nobody knows does, with the reason."""
    path = request.url.path
    # The longest that fits: none of them begins another.
    reason = next(reason for name, reason in REFUSALS.items() if path.startswith(f"/v1/{name.rstrip('/')}"))
    raise NotFound(f"{request.method} {path} is not offered here: {reason}", code="unsupported_endpoint")


for _name in REFUSALS:
    _path = f"/{_name.rstrip('/')}"
    router.add_api_route(_path, refuse, methods=["GET"] if _name.endswith("/") else _ALL)
    router.add_api_route(_path + "/{below:path}", refuse, methods=_ALL)
