"""One generation from request to answer."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from inference.adapters import AdapterLoader
from inference.loop import EngineLoop
from inference.schemas import GenerateRequest
from osora_core.data import Renderer
from osora_core.inference import Request, SamplingParams
from osora_core.runtime import Runtime


@dataclass(frozen=True)
class Served:
    """A base with all that serves it."""

    runtime: Runtime
    loop: EngineLoop
    adapters: AdapterLoader
    renderer: Renderer

    def describe(self) -> dict[str, Any]:
        """What GET /bases says of it."""
        runtime = self.runtime
        return {
            "name": runtime.name,
            "fingerprint": runtime.basis.base_fingerprint,
            "parameters": runtime.parameters,
            "bytes": runtime.bytes,
            "max_length": self.loop.engine.max_length,
            "dtype": str(runtime.model.dtype).removeprefix("torch."),
            "device": str(runtime.device),
            "basis": {
                "fingerprint": runtime.basis.fingerprint,
                "rank": runtime.basis.rank,
                "target_modules": runtime.basis.target_modules,
            },
        }


@dataclass
class Generation:
    """A running generation: iterate `pieces()` for text as it comes, then read `answer()`."""

    served: Served
    body: GenerateRequest
    request: Request
    started: float
    queued: float
    first_token: float | None = None
    text: str = ""
    completion_tokens: int = 0
    finish_reason: str = ""

    @classmethod
    async def start(cls, served: Served, body: GenerateRequest) -> "Generation":
        """Tokenise, fetch the adapter if it is cold, and hand the request to the engine."""
        started = time.perf_counter()
        params = SamplingParams(
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            top_k=body.top_k,
            top_p=body.top_p,
            min_p=body.min_p,
            seed=body.seed,
            stop=tuple(body.stop),
        )
        row = await served.adapters.get(body.adapter, body.strength) if body.adapter is not None else None
        prompt = (
            served.renderer.prompt(body.messages)
            if body.messages is not None
            else served.renderer.encode(body.prompt or "")
        )
        request = Request(body.request_id, tuple(prompt), params, row)
        return cls(served, body, request, started, time.perf_counter())

    async def pieces(self) -> AsyncIterator[str]:
        """Text as it is generated. Leaving the iteration early cancels the request."""
        loop = self.served.loop
        outputs = loop.submit(self.request)
        try:
            while not self.finish_reason:
                output = await outputs.get()
                if isinstance(output, Exception):
                    raise output
                if self.first_token is None:
                    self.first_token = time.perf_counter()
                self.text += output.text
                self.completion_tokens = output.completion_tokens
                self.finish_reason = output.finish_reason or ""
                if output.text:
                    yield output.text
        finally:
            loop.finish(self.request.id)

    def answer(self) -> dict[str, Any]:
        """The whole result, with a receipt of what made it."""
        adapter, basis = self.body.adapter, self.served.runtime.basis
        first = self.first_token or time.perf_counter()
        return {
            "id": self.request.id,
            "object": "generation",
            "base": self.served.runtime.name,
            "adapter_id": adapter.id if adapter else None,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": {
                "prompt_tokens": len(self.request.prompt),
                "completion_tokens": self.completion_tokens,
                "total_tokens": len(self.request.prompt) + self.completion_tokens,
            },
            "timing": {
                "load_ms": _milliseconds(self.started, self.queued),
                "first_token_ms": _milliseconds(self.started, first),
                "total_ms": _milliseconds(self.started, time.perf_counter()),
            },
            "receipt": {
                "base": self.served.runtime.name,
                "base_fingerprint": basis.base_fingerprint,
                "basis_fingerprint": basis.fingerprint,
                "adapter_id": adapter.id if adapter else None,
                "adapter_name": adapter.name if adapter else None,
                "adapter_version": adapter.version if adapter else None,
                "adapter_sha256": adapter.sha256 if adapter else None,
                "strength": self.body.strength if adapter else None,
            },
        }


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
