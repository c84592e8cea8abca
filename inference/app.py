"""The HTTP side of the inference server."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from inference import errors
from inference.adapters import AdapterLoader
from inference.errors import ServerError
from inference.generation import Generation, Served
from inference.loop import EngineLoop
from inference.schemas import GenerateRequest
from inference.settings import InferenceSettings
from inference.store import ArtifactStore
from osora_core.data import Renderer
from osora_core.inference import InferenceEngine
from osora_core.runtime import Runtime

_DISCONNECT_CHECK_SECONDS = 0.2


def create_app(
    settings: InferenceSettings,
    runtimes: Mapping[str, Runtime],
    store: ArtifactStore,
    on_death: Callable[[], None],
) -> FastAPI:
    """The server's app over loaded bases. `on_death` is called if an engine fails for good."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.served = {name: _serve(runtime, settings, store, on_death) for name, runtime in runtimes.items()}
        yield
        for served in app.state.served.values():
            served.loop.stop()

    app = FastAPI(title="Osora inference", lifespan=lifespan, openapi_url=None)
    errors.install(app)

    @app.middleware("http")
    async def authenticate(request: Request, call_next: Callable[[Request], Any]) -> Response:
        token = settings.token()
        offered = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path != "/health" and not (token and secrets.compare_digest(offered.encode(), token.encode())):
            refused = errors.body(
                "this server answers only Osora's own processes", "authentication_error", "unauthorized"
            )
            return JSONResponse(refused, 401)
        response: Response = await call_next(request)
        return response

    @app.get("/health")
    async def health() -> JSONResponse:
        alive = all(served.loop.alive for served in app.state.served.values())
        return JSONResponse({"status": "ok" if alive else "engine stopped"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        return await health()

    @app.get("/bases")
    async def bases() -> dict[str, Any]:
        return {"data": [served.describe() for served in app.state.served.values()]}

    @app.post("/generate")
    async def generate(body: GenerateRequest, request: Request) -> Response:
        served = app.state.served.get(body.base)
        if served is None:
            raise ServerError(
                503, "service_unavailable_error", "base_not_loaded", f"this server does not hold base {body.base!r}",
                next_action="give API and inference server the same OSORA_BASES",
            )  # fmt: skip
        generation = await Generation.start(served, body)
        if body.stream:
            pieces = generation.pieces()
            # The first piece is awaited here so that a refusal still has its own status.
            first = await anext(pieces, None)
            return StreamingResponse(_events(generation, first, pieces), media_type="text/event-stream")
        checked = time.monotonic()
        async for _ in generation.pieces():
            if time.monotonic() - checked > _DISCONNECT_CHECK_SECONDS:
                if await request.is_disconnected():
                    return Response(status_code=499)
                checked = time.monotonic()
        return JSONResponse(generation.answer())

    return app


def _serve(runtime: Runtime, settings: InferenceSettings, store: ArtifactStore, on_death: Callable[[], None]) -> Served:
    engine = InferenceEngine(runtime, rows=settings.inference_rows, adapters=settings.inference_adapters)
    return Served(
        runtime,
        EngineLoop(engine, queue_limit=settings.inference_queue, on_death=on_death),
        AdapterLoader(store.get, runtime.basis, settings.inference_cache_bytes),
        Renderer(runtime.tokenizer, runtime.max_length),
    )


async def _events(generation: Generation, first: str | None, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        if first is not None:
            yield _event("token", {"text": first})
        async for piece in pieces:
            yield _event("token", {"text": piece})
        yield _event("done", generation.answer())
    except Exception as error:
        yield _event("error", errors.describe(error)[1])


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
