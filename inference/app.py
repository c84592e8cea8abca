"""The HTTP side of the inference server."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.sse import format_sse_event
from starlette.background import BackgroundTask

from inference import errors, imports, inputs
from inference.adapters import AdapterLoader, judged
from inference.authentication import AuthenticationMiddleware
from inference.errors import ServerError
from inference.exports import Exporter
from inference.generation import Generation, Served
from inference.loop import EngineLoop
from inference.measuring import Measurer
from inference.schemas import ExportRequest, ForgetRequest, GenerateRequest, InspectRequest, MeasureRequest
from inference.settings import InferenceSettings
from inference.store import ArtifactStore
from osora_common.bodies import Allowance, BodiesMiddleware
from osora_common.disconnect import CLIENT_GONE, unless_gone
from osora_common.scratch import Scratch
from osora_common.turns import Turns
from osora_core import canary
from osora_core.adapter import Adapter
from osora_core.data import Renderer
from osora_core.inference import AdapterRow, InferenceEngine
from osora_core.inference.calls import ToolUse
from osora_core.inference.grammar import GrammarCompiler

_BODY_BYTES = 16 * 1024 * 1024
"""Several times what the API takes: JSON may be longer when it is written again."""
_BODIES_BYTES = 512 * 1024 * 1024


def create_app(
    settings: InferenceSettings,
    engines: Mapping[str, InferenceEngine],
    store: ArtifactStore,
    on_death: Callable[[], None],
) -> FastAPI:
    """The server's app over a warm engine for each base. `on_death` is called if an engine fails for good."""

    scratch = Scratch(settings.data_dir)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.served = {name: _serve(engine, settings, store, on_death) for name, engine in engines.items()}
        app.state.measurer = Measurer(store.fetch, settings.base_paths, scratch)
        await run_in_threadpool(lambda: scratch.folder)  # and what a process before this one has left goes
        yield
        await app.state.measurer.close()
        for served in app.state.served.values():
            served.loop.stop()
        scratch.close()

    app = FastAPI(title="Osora inference", lifespan=lifespan, openapi_url=None)
    errors.install(app)
    allowance = Allowance(_BODY_BYTES, _BODY_BYTES)
    # The API says whose a request is, and has seen to it that no tenant's fill the memory for all.
    app.add_middleware(BodiesMiddleware, memory=_BODIES_BYTES, allowance=lambda _: allowance, owner=lambda _: "")
    app.add_middleware(AuthenticationMiddleware, token=settings.token)

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

    def held(base: str) -> Served:
        served: Served | None = app.state.served.get(base)
        if served is None:
            raise ServerError(
                503, "service_unavailable_error", "base_not_loaded", f"this server does not hold base {base!r}",
                next_action="give API and inference server the same OSORA_BASES",
            )  # fmt: skip
        return served

    # One after another: each may take as much memory as an upload may have bytes, a few times over.
    inspecting = asyncio.Lock()

    @app.post("/inspect")
    async def inspect(body: InspectRequest) -> dict[str, Any]:
        async with inspecting:
            return await run_in_threadpool(imports.inspect, held(body.base).loop, store.get, body)

    @app.get("/adapters")
    async def adapters() -> dict[str, list[str]]:
        return {
            "data": sorted(
                {key.partition("@")[0] for served in app.state.served.values() for key in served.in_memory()}
            )
        }

    @app.post("/forget")
    async def forget(body: ForgetRequest) -> dict[str, bool]:
        unwanted = frozenset(body.adapters)
        for served in app.state.served.values():
            served.drop(lambda key: key.partition("@")[0] in unwanted)
        return {"forgotten": True}

    exporter = Exporter(store.get, settings.base_paths, scratch)
    # Whoever waits for it here holds no thread, which all other requests need; and may leave.
    exporting = asyncio.Lock()

    @app.post("/export")
    async def export(body: ExportRequest, request: Request) -> Response:
        async with exporting:
            if await request.is_disconnected():
                return Response(status_code=CLIENT_GONE)
            path = await run_in_threadpool(exporter.make, held(body.base).runtime, body)
        name = f"{body.adapter.id}-{body.format}.zip"
        return FileResponse(path, media_type="application/zip", filename=name, background=BackgroundTask(path.unlink))

    @app.post("/measure")
    async def measure(body: MeasureRequest) -> dict[str, Any]:
        runtime = held(body.base).runtime
        limit = min(body.limit or runtime.max_length, runtime.max_length)
        measured = await app.state.measurer.measure(body, limit)
        return {"base_fingerprint": runtime.basis.base_fingerprint, "measure": measured}

    @app.post("/generate")
    async def generate(body: GenerateRequest, request: Request) -> Response:
        generation = Generation(held(body.base), body)
        if body.stream:
            pieces = generation.pieces()
            # The first piece is awaited here so that a refusal still has its own status.
            first = await unless_gone(request, lambda: anext(pieces, {}))
            if first is None:
                return Response(status_code=CLIENT_GONE)
            return StreamingResponse(_events(generation, first, pieces), media_type="text/event-stream")
        answer = await unless_gone(request, lambda: _whole(generation))
        return Response(status_code=CLIENT_GONE) if answer is None else JSONResponse(answer)

    return app


def _serve(
    engine: InferenceEngine, settings: InferenceSettings, store: ArtifactStore, on_death: Callable[[], None]
) -> Served:
    runtime = engine.runtime
    loop = EngineLoop(engine, queue_limit=settings.inference_queue, on_death=on_death)

    def check(adapter: Adapter, row: AdapterRow) -> "Future[None] | None":
        published = canary.read(runtime, adapter)
        if published is None:
            return None
        return judged(loop.examine(row, published.tokens, published.ids), published.judge)

    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    grammars = GrammarCompiler(runtime.tokenizer, engine.vocabulary, runtime.eos_ids)
    return Served(
        runtime,
        loop,
        AdapterLoader(store.get, runtime.basis, settings.inference_cache_bytes, check, engine.loras.bank.capacity),
        renderer,
        grammars,
        ToolUse.of(renderer.call_format, grammars),
        Turns(),
        inputs.characters_of_tokens(runtime.tokenizer, engine.max_length),
    )


async def _whole(generation: Generation) -> dict[str, Any]:
    async with aclosing(generation.pieces()) as pieces:
        async for _ in pieces:
            pass
    return generation.answer()


async def _events(
    generation: Generation, first: dict[str, Any], pieces: AsyncGenerator[dict[str, Any], None]
) -> AsyncIterator[bytes]:
    async with aclosing(pieces):
        try:
            if first:
                yield _event("token", first)
            async for piece in pieces:
                yield _event("token", piece)
            yield _event("done", generation.answer())
        except Exception as error:
            yield _event("error", errors.describe(error)[1])


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(data))
