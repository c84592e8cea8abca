"""The application: its resources, its routes, its errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from api import docs, errors
from api.adapters.endpoints import router as adapters
from api.aliases.endpoints import router as aliases
from api.anthropic.endpoints import router as messages
from api.audit.endpoints import router as audit
from api.bases.endpoints import router as bases
from api.files.endpoints import router as files
from api.generate.endpoints import router as generate
from api.health.endpoints import router as health
from api.internal.endpoints import router as internal
from api.jobs.endpoints import router as jobs
from api.jobs.events import router as job_events
from api.keys.endpoints import router as keys
from api.limits.endpoints import router as limits
from api.middleware.access_log import AccessLogMiddleware
from api.middleware.authentication import AuthenticationMiddleware
from api.middleware.bodies import Allowances, tenant_of
from api.middleware.head import HeadMiddleware
from api.middleware.processing_time import ProcessingTimeMiddleware
from api.middleware.refusals import RefusalsMiddleware
from api.middleware.request_id import RequestIdMiddleware
from api.middleware.security_headers import SecurityHeadersMiddleware
from api.middleware.targets import TargetMiddleware
from api.openai.chat.endpoints import router as chat
from api.openai.completions.endpoints import router as completions
from api.openai.models.endpoints import router as openai_models
from api.openai.permissions.endpoints import router as permissions
from api.openai.refusals import router as refusals
from api.openai.responses.endpoints import router as responses
from api.schemas import ErrorBody
from api.services import Services
from api.system.endpoints import router as system
from api.tenants.endpoints import router as tenants
from api.uploads.endpoints import router as uploads
from api.usage.endpoints import router as usage
from api.webhooks.endpoints import router as webhooks
from osora_common.bodies import BodiesMiddleware
from osora_common.failures import FailureMiddleware
from registry.settings import Settings

_DESCRIPTION = """Upload examples, get a small adapter, call it a second later.

1. `POST /files`: a file of chats, of prompts and completions, of preferences, or of texts.
2. `POST /jobs`: fine-tune a base on it; `GET /jobs/{job_id}/events` follows the training.
3. `POST /generate` with the job's `osora.adapter_id`.

With this address and `/v1` as its `base_url`, OpenAI's unmodified client finds the same files, jobs and adapters, chats
and responses. Anthropic's finds `/v1/messages` with this address alone.

Send an API key as `Authorization: Bearer osk-…` (or `x-api-key: osk-…`).
Every error is `{"error": {"message", "type", "param", "code", …}}`; that of `/v1/messages` has Anthropic's shape.
"""

# The doors, by what comes before a router's own paths. Files, uploads, jobs and webhooks are the same routes in two.
_Doors = tuple[tuple[str, APIRouter], ...]
_NATIVE: _Doors = (
    ("", files),
    ("", uploads),
    ("/jobs", jobs),
    ("/jobs", job_events),
    ("", adapters),
    ("", aliases),
    ("", generate),
    ("", bases),
    ("", keys),
    ("", audit),
    ("", limits),
    ("", tenants),
    ("", webhooks),
    ("", usage),
    ("", system),
    ("", health),
    ("", internal),
)
_OPENAI: _Doors = (
    ("/v1", files),
    ("/v1", uploads),
    ("/v1/fine_tuning/jobs", jobs),
    ("/v1/fine_tuning/jobs", job_events),
    ("/v1", webhooks),
    ("", openai_models),
    ("", permissions),
    ("", chat),
    ("", completions),
    ("", responses),
)

_ANTHROPIC: _Doors = (("", messages),)

PUBLIC_PATHS = ("/", "/health", "/ready")
"""What needs no key, beside the documents of the API."""

_EXPOSED = (
    "anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
    "content-disposition", "etag", "idempotent-replayed", "openai-processing-ms", "retry-after", "request-id",
    "x-ratelimit-limit-requests", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", "x-request-id",
)  # fmt: skip
"""Headers that a page of another origin may read."""

# Also keeps FastAPI from listing a 422 that this API never sends.
_ANY_ERROR: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorBody, "description": "Any other error."}}


def create_app(settings: Settings) -> FastAPI:
    """The API of one installation. Nothing is opened before the app starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Services.open(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="Osora",
        summary="Fine-tuning as a service on OSoRA adapters.",
        description=_DESCRIPTION,
        version=version("osora"),
        lifespan=lifespan,
        responses=_ANY_ERROR,
        openapi_url=None,
    )
    docs.install(app, is_shown=settings.docs)
    errors.install(app)
    _add_middleware(app, settings)
    app.state.routers = (*_NATIVE, *_OPENAI, *_ANTHROPIC)
    for prefix, router in _NATIVE:
        app.include_router(router, prefix=prefix)
    for prefix, router in _OPENAI:
        app.include_router(router, prefix=prefix, tags=["openai"])  # comes before the router's own
    for prefix, router in _ANTHROPIC:
        app.include_router(router, prefix=prefix, tags=["anthropic"])
    app.include_router(refusals)  # last: what is there goes before
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """What is added last is the outermost."""
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        BodiesMiddleware,
        memory=settings.body_memory_bytes,
        allowance=Allowances(settings.max_upload_bytes),
        owner=tenant_of,
    )
    app.add_middleware(AuthenticationMiddleware, public=(*PUBLIC_PATHS, *(docs.PATHS if settings.docs else ())))
    app.add_middleware(TargetMiddleware, hosts=settings.allowed_host_list)
    app.add_middleware(ProcessingTimeMiddleware, prefix="/v1/")
    app.add_middleware(FailureMiddleware, answer=errors.answer)
    app.add_middleware(RefusalsMiddleware)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin_list,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
            allow_credentials=False,
        )
    app.add_middleware(SecurityHeadersMiddleware, shares=bool(settings.cors_origins))
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(RequestIdMiddleware)
