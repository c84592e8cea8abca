"""An inference server that only talks: it generates nothing, remembers what it was asked, fails on demand."""

import json
import threading
from collections.abc import AsyncIterator
from typing import Any, Literal

import anyio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from osora_common.http_protocol import IDLE_SECONDS

Mood = Literal["fine", "busy", "full", "refusing", "hanging", "breaking"]

RESULT: dict[str, Any] = {
    "id": "gen-1",
    "object": "generation",
    "base": "osora-tiny",
    "adapter_id": None,
    "text": "category: billing",
    "finish_reason": "stop",
    "choices": [{"index": 0, "text": "category: billing", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    "timing": {"queue_ms": 0.1, "first_token_ms": 1.0, "total_ms": 2.0},
    "receipt": {"base": "osora-tiny", "strength": 1.0},
}
REFUSAL = {"error": {"message": "max_tokens is 9: too many", "type": "invalid_request_error", "code": "x"}}
BUSY = {"error": {"message": "the bank is full", "type": "service_unavailable_error", "code": "out_of_slots"}}

PIECES = [{"index": 0, "text": "category: "}, {"index": 0, "text": "billing"}]

FULL = {"error": {"message": "600 wait", "type": "rate_limit_error", "code": "overloaded"}}


def result(**changed: Any) -> dict[str, Any]:
    """`RESULT` with another choice."""
    return {**RESULT, "choices": [{**RESULT["choices"][0], **changed}]}


FOUND: dict[str, Any] = {
    "type": "lora",
    "rank": 4,
    "parameters": 1280,
    "target_modules": ["q_proj"],
    "base_fingerprint": "f",
    "basis_fingerprint": None,
    "warnings": [],
}

LOAD: dict[str, Any] = {
    "running": 3,
    "waiting": 2,
    "rows": 32,
    "tokens_per_second": 41.5,
    "adapters": 5,
    "adapter_slots": 256,
    "lora_ranks": 16,
    "lora_capacity": 256,
}

BASIS = "b" * 64
BASIS_KEY = "basis/f/all-linear-r128-float32.safetensors"


def measured(rows: int, **changed: Any) -> dict[str, Any]:
    """A measure of so many rows, ten tokens each, that fit."""
    kept = {"rows": rows, "tokens": 10 * rows, "trained_tokens": 3 * rows, "rows_cut": 0}
    return {
        "limit": 100,
        "rows": rows,
        "counted": rows,
        "complete": True,
        "rows_over": 0,
        "over": [],
        "rows_refused": 0,
        "refused": [],
        "tokens": 10 * rows,
        "trained_tokens": 3 * rows,
        "dropped": kept,
        "truncated": kept,
        "histogram": [{"from": 1, "to": 16, "rows": rows}],
        "samples": [],
        "warnings": [],
        **changed,
    }


class FakeInference:
    """Set `mood` to say how it behaves. `bases`: those it has loaded; `result`, `pieces` of a stream and `refusal`:
    what it answers; `found`: what it says that an adapter from outside is; `asked`: the bodies; `abandoned`: set when a
    client left. `held`: the adapters in its memory; `forgot`: set when it was told to let go of some. `measure`: what
    it measures of any file; while `may_measure` is clear, it is still at it."""

    def __init__(self, token: str) -> None:
        self.mood: Mood = "fine"
        self.bases = ["osora-tiny"]
        self.fingerprint = "f"
        self.refusal: dict[str, Any] = REFUSAL
        self.result: dict[str, Any] = RESULT
        self.pieces: list[dict[str, Any]] = PIECES
        self.found: dict[str, Any] = FOUND
        self.asked: list[dict[str, Any]] = []
        self.spans: dict[str, Any] | None = None
        self.longest_row: int | None = None
        self.largest_mix: int | None = None
        self.measure: dict[str, Any] | None = None
        self.may_measure = threading.Event()
        self.may_measure.set()
        self.reached = threading.Event()
        self.abandoned = threading.Event()
        self.held: list[str] = []
        self.forgot = threading.Event()
        self.records: list[dict[str, Any]] = []
        """Of usage, which it hands out two at a time until they are acknowledged."""
        self.acknowledged = 0
        self.may_acknowledge = True
        """Whether it hears an acknowledgement; `deaf` is set when it did not."""
        self.deaf = threading.Event()
        self.added: dict[str, dict[str, Any]] = {}
        """Bases that it was told to add; `told` is notified when that changes."""
        self.told = threading.Condition()
        self._token = token

    def server(self) -> uvicorn.Server:
        """A server to run it."""
        app = FastAPI()
        app.post("/generate")(self._generate)
        app.post("/export")(self._export)
        app.post("/inspect")(self._inspect)
        app.post("/measure")(self._measure)
        app.post("/usage/take")(self._take_usage)
        app.get("/bases")(self._bases)
        app.post("/bases")(self._add_base)
        app.post("/bases/remove")(self._remove_base)
        app.get("/ready")(self._ready)
        app.get("/adapters")(self._adapters)
        app.get("/load")(self._load)
        app.post("/forget")(self._forget)
        return uvicorn.Server(
            uvicorn.Config(
                app,
                port=0,
                log_level="critical",
                loop="asyncio",
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=1,
            )
        )

    async def _generate(self, request: Request) -> Response:
        if request.headers["authorization"] != f"Bearer {self._token}":
            return JSONResponse({"error": {"message": "bad token"}}, 401)
        body = await request.json()
        self.asked.append(body)
        self.reached.set()
        match self.mood:
            case "busy":
                return JSONResponse(BUSY, 503, {"retry-after": "7"})
            case "full":
                return JSONResponse(FULL, 429, {"retry-after": "1"})
            case "refusing":
                return JSONResponse(self.refusal, 400)
            case "hanging" if not body["stream"]:
                while not await request.is_disconnected():
                    await anyio.sleep(0.01)
                self.abandoned.set()
                return Response(status_code=499)
        if body["stream"]:
            return StreamingResponse(self._tokens(), media_type="text/event-stream")
        return JSONResponse(self.result)

    async def _export(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.mood == "refusing":
            return JSONResponse(REFUSAL, 400)
        headers = {"content-disposition": f'attachment; filename="{body["adapter"]["id"]}-{body["format"]}.zip"'}
        return Response(b"exported", media_type="application/zip", headers=headers)

    async def _inspect(self, request: Request) -> Response:
        self.asked.append(await request.json())
        self.reached.set()
        if self.mood == "busy":
            return JSONResponse(BUSY, 503)
        if self.mood == "refusing":
            return JSONResponse(self.refusal, 400)
        return JSONResponse(self.found)

    async def _measure(self, request: Request) -> Response:
        self.asked.append(await request.json())
        while not self.may_measure.is_set():
            await anyio.sleep(0.01)
        if self.measure is None:
            return JSONResponse({"error": {"message": "it measures nothing"}}, 503)
        return JSONResponse({"base_fingerprint": self.fingerprint, "measure": self.measure})

    async def _take_usage(self, request: Request) -> Response:
        upto = (await request.json())["acknowledged"].get("segment-1", 0)
        if upto and not self.may_acknowledge:
            self.deaf.set()
            return JSONResponse({"error": {"message": "what was that?"}}, 500)
        self.acknowledged = max(self.acknowledged, upto)
        waiting = [{**said, "number": number} for number, said in enumerate(self.records, 1)][self.acknowledged :]
        segment = "segment-1" if waiting else None
        return JSONResponse({"gone": [], "segment": segment, "records": waiting[:2]})

    async def _tokens(self) -> AsyncIterator[str]:
        first, *others = self.pieces
        yield _token(first)
        if self.mood == "breaking":
            raise ConnectionError("the plug was pulled")
        if self.mood == "hanging":
            try:
                await anyio.sleep_forever()
            finally:
                self.abandoned.set()
        for piece in others:
            yield _token(piece)
        yield f"event: done\ndata: {json.dumps(self.result)}\n\n"

    async def _bases(self) -> dict[str, Any]:
        basis = {"rank": 128, "fingerprint": BASIS, "object_key": BASIS_KEY, "spans": self.spans}
        about = {"family": "llama", "fingerprint": self.fingerprint, "parameters": 7, "basis": basis}
        about["longest_row"] = self.longest_row
        if self.largest_mix is not None:  # of which older servers say nothing
            about["largest_mix"] = self.largest_mix
        return {"data": [{"name": name, **about} for name in self.bases], "added": list(self.added.values())}

    async def _add_base(self, request: Request) -> dict[str, bool]:
        body = await request.json()
        with self.told:
            self.added[body["name"]] = {**body, "loaded": True, "problem": None}
            self.told.notify_all()
        return {"loading": True}

    async def _remove_base(self, request: Request) -> dict[str, bool]:
        with self.told:
            removed = self.added.pop((await request.json())["name"], None) is not None
            self.told.notify_all()
        return {"removed": removed}

    async def _load(self) -> dict[str, Any]:
        return {"data": [{"base": base, **LOAD} for base in self.bases]}

    async def _adapters(self) -> dict[str, list[str]]:
        return {"data": self.held}

    async def _forget(self, request: Request) -> dict[str, bool]:
        unwanted = (await request.json())["adapters"]
        self.held = [adapter for adapter in self.held if adapter not in unwanted]
        self.forgot.set()
        return {"forgotten": True}

    async def _ready(self) -> dict[str, Any]:
        return {"ready": True}


def _token(piece: dict[str, Any]) -> str:
    return f"event: token\ndata: {json.dumps(piece)}\n\n"
