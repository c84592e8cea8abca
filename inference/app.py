"""The HTTP side of the inference server."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import CancelScope
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from inference import errors, imports, inputs
from inference.adapters import AdapterLoader, judged
from inference.authentication import AuthenticationMiddleware
from inference.bases import Bases
from inference.exports import Exporter
from inference.generation import Generation, Served
from inference.lines import Line
from inference.loop import EngineLoop
from inference.measuring import Measurer
from inference.metering import keep_synced
from inference.schemas import (
    AddBase,
    ExportRequest,
    ForgetRequest,
    GenerateRequest,
    InspectRequest,
    MeasureRequest,
    RemoveBase,
    TakeUsage,
)
from inference.settings import InferenceSettings
from inference.spool import Spool
from inference.store import ArtifactStore
from osora_common.bodies import Allowance, BodiesMiddleware
from osora_common.disconnect import CLIENT_GONE, unless_gone
from osora_common.freed_memory import giving_back
from osora_common.priority import give_way
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
# Read between two steps of the event loop: they take a few milliseconds.
_RECORDS = 200


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
        spool = app.state.spool = Spool(settings.data_dir / "usage", settings.inference_usage_bytes)
        bases = app.state.bases = Bases(
            settings, store, lambda engine: _serve(engine, settings, store, spool, on_death)
        )
        bases.begin(engines)
        app.state.measurer = Measurer(store.fetch, bases.paths, scratch)
        app.state.exporter = Exporter(store.get, bases.paths, scratch)
        await run_in_threadpool(lambda: scratch.folder)  # and what a process before this one has left goes
        syncing = asyncio.create_task(keep_synced(spool))
        with giving_back():
            yield
        await app.state.measurer.close()
        await bases.close()
        syncing.cancel()
        spool.close()
        scratch.close()

    app = FastAPI(title="Osora inference", lifespan=lifespan, openapi_url=None)
    errors.install(app)
    allowance = Allowance(_BODY_BYTES, _BODY_BYTES)
    # The API says whose a request is, and has seen to it that no tenant's fill the memory for all.
    app.add_middleware(BodiesMiddleware, memory=_BODIES_BYTES, allowance=lambda _: allowance, owner=lambda _: "")
    app.add_middleware(AuthenticationMiddleware, token=settings.token)

    @app.get("/health")
    async def health() -> JSONResponse:
        alive = all(served.loop.alive for served in app.state.bases)
        return JSONResponse({"status": "ok" if alive else "engine stopped"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        return await health()

    @app.get("/bases")
    async def bases() -> dict[str, Any]:
        described: dict[str, Any] = app.state.bases.describe()
        return described

    @app.post("/bases")
    async def add_base(body: AddBase) -> dict[str, bool]:
        """Begins to load it; `GET /bases` says what came of that."""
        app.state.bases.add(body)
        return {"loading": True}

    @app.post("/bases/remove")
    async def remove_base(body: RemoveBase) -> dict[str, bool]:
        return {"removed": app.state.bases.remove(body.name)}

    @app.get("/load")
    async def load() -> dict[str, Any]:
        return {"data": [{"base": one.runtime.name, **one.loop.load()} for one in app.state.bases]}

    def held(base: str) -> Served:
        served: Served = app.state.bases.held(base)
        return served

    # Each may take as much memory as an upload may have bytes, a few times over, and wait for the engine for long.
    inspecting = Line("adapters to import", at_once=4, most_of_tenant=4)

    @app.post("/inspect")
    async def inspect(body: InspectRequest, request: Request) -> Response:
        async def facts() -> dict[str, Any]:
            with inspecting.place(body.tenant):
                async with inspecting.turn(body.tenant):
                    loop = held(body.base).loop
                    return await run_in_threadpool(imports.inspect, loop, store.get, body)

        found = await unless_gone(request, facts)
        return Response(status_code=CLIENT_GONE) if found is None else JSONResponse(found)

    @app.get("/adapters")
    async def adapters() -> dict[str, list[str]]:
        keys = {key for served in app.state.bases for key in served.in_memory()}
        return {"data": sorted({key.partition("@")[0] for key in keys})}

    @app.post("/forget")
    async def forget(body: ForgetRequest) -> dict[str, bool]:
        unwanted = frozenset(body.adapters)
        for served in app.state.bases:
            served.drop(lambda key: key.partition("@")[0] in unwanted)
        return {"forgotten": True}

    # A merged one takes the base's memory once more, and its disk space until it is downloaded.
    exporting = Line("exports", at_once=1, most_of_tenant=4)
    making = ThreadPoolExecutor(1, "export", initializer=give_way)

    @app.post("/export")
    async def export(body: ExportRequest, request: Request) -> Response:
        runtime = held(body.base).runtime
        kept = ExitStack()
        kept.enter_context(exporting.place(body.tenant))

        async def made() -> Path:
            async with exporting.turn(body.tenant):
                with CancelScope(shield=True):  # or nobody would know of the file
                    exporter: Exporter = app.state.exporter
                    path = await asyncio.get_running_loop().run_in_executor(making, exporter.make, runtime, body)
                    kept.callback(path.unlink)
                return path

        try:
            path = await unless_gone(request, made)
        except BaseException:
            kept.close()
            raise
        if path is None:
            kept.close()
            return Response(status_code=CLIENT_GONE)
        name = f"{body.adapter.id}-{body.format}.zip"
        return _Export(path, kept, media_type="application/zip", filename=name)

    @app.post("/measure")
    async def measure(body: MeasureRequest) -> dict[str, Any]:
        runtime = held(body.base).runtime
        limit = min(body.limit or runtime.max_length, runtime.max_length)
        measured = await app.state.measurer.measure(body, limit)
        return {"base_fingerprint": runtime.basis.base_fingerprint, "measure": measured}

    @app.post("/usage/take")
    async def take_usage(body: TakeUsage) -> dict[str, Any]:
        """Records that are not acknowledged yet, and the segments that are gone for good with what is."""
        spool: Spool = app.state.spool
        gone = spool.acknowledge(body.acknowledged)
        segment, records = spool.take(_RECORDS) or (None, [])
        return {"gone": gone, "segment": segment, "records": [{**record, "number": n} for n, record in records]}

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
    engine: InferenceEngine,
    settings: InferenceSettings,
    store: ArtifactStore,
    spool: Spool,
    on_death: Callable[[], None],
) -> Served:
    runtime = engine.runtime
    loop = EngineLoop(engine, queue_limit=settings.inference_queue, on_death=on_death)

    def check(adapter: Adapter, row: AdapterRow) -> "Future[None] | None":
        published = canary.read(runtime, adapter)
        if published is None:
            return None
        return judged(loop.examine(row, published.tokens, published.ids), published.judge)

    room = {"lora_ranks": engine.loras.bank.capacity, "largest_mix": engine.mixes.bank.largest}
    loader = AdapterLoader(store.get, runtime.basis, settings.inference_cache_bytes, check, **room)
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    grammars = GrammarCompiler(runtime.tokenizer, engine.vocabulary, runtime.eos_ids)
    return Served(
        runtime,
        loop,
        loader,
        renderer,
        grammars,
        ToolUse.of(renderer.call_format, grammars),
        Turns(),
        spool,
        inputs.characters_of_tokens(runtime.tokenizer, engine.max_length),
    )


class _Export(FileResponse):
    """A file whose place in the line is given up when it has been sent, or nobody takes it any more."""

    def __init__(self, path: Path, kept: ExitStack, **options: Any) -> None:
        super().__init__(path, **options)
        self._kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        with self._kept:
            await super().__call__(scope, receive, send)


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
