"""One generation from request to answer."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

from inference import inputs
from inference.adapters import AdapterLoader
from inference.loop import EngineLoop
from inference.metering import Account
from inference.schemas import GenerateRequest
from inference.spool import Spool
from osora_common.turns import Turns
from osora_core.basis import Basis
from osora_core.data import Renderer
from osora_core.errors import CorruptArtifact, UserError
from osora_core.inference import Output, Request, SamplingParams, TokenScore
from osora_core.inference.call_reader import Call, CallReader
from osora_core.inference.calls import ToolUse
from osora_core.inference.grammar import Grammar, GrammarCompiler
from osora_core.runtime import Runtime


@dataclass(frozen=True)
class Served:
    """A base with all that serves it."""

    runtime: Runtime
    loop: EngineLoop
    adapters: AdapterLoader
    renderer: Renderer
    grammars: GrammarCompiler
    tool_use: ToolUse
    turns: Turns
    spool: Spool
    """Where what was computed is recorded."""
    most_characters: int
    """Of a text that the engine may have room for."""

    def in_memory(self) -> set[str]:
        """The keys of the adapters in memory, of the host or in the banks."""
        engine = self.loop.engine
        return {*self.adapters.keys, *engine.slots.keys, *engine.loras.keys}

    def drop(self, is_unwanted: Callable[[str], bool]) -> None:
        """Let go of the adapters with such keys, as soon as no request uses them."""
        self.adapters.drop(is_unwanted)
        self.loop.drop(is_unwanted)

    def close(self) -> None:
        """Let go of what is its own, when its engine has stopped."""
        self.adapters.close()
        self.turns.close()

    def describe(self) -> dict[str, Any]:
        """What GET /bases says of it."""
        runtime = self.runtime
        return {
            "name": runtime.name,
            "family": runtime.model.config.model_type,
            "has_chat_template": runtime.tokenizer.chat_template is not None,
            "fingerprint": runtime.basis.base_fingerprint,
            "parameters": runtime.parameters,
            "bytes": runtime.bytes,
            "max_length": self.loop.engine.max_length,
            "longest_row": runtime.max_length,
            "dtype": str(runtime.model.dtype).removeprefix("torch."),
            "device": str(runtime.device),
            "basis": {
                "fingerprint": runtime.basis.fingerprint,
                "rank": runtime.basis.rank,
                "full_rank": runtime.basis.full_rank,
                "beginnings": _beginnings(runtime.basis),
                "target_modules": runtime.basis.target_modules,
                "object_key": runtime.basis.key,
                "spans": _spans(runtime.basis),
            },
        }


def _beginnings(basis: Basis) -> dict[str, str]:
    """Where the smaller stored bases lie that this one begins with, by their hash: adapters are made on those too."""
    return {one.fingerprint: basis.key_at(one) for one in basis.known[:-1]}


def _spans(basis: Basis) -> dict[str, list[tuple[int, int]]]:
    """Rank and outputs of every weight, by the name of its module."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for span in basis.spans:
        spans.setdefault(span.name.rpartition(".")[2], []).append((span.rank, span.d_out))
    return spans


@dataclass
class _Choice:
    """One of the `n` answers to a prompt."""

    text: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    completion_tokens: int = 0
    finish_reason: str = ""
    stop: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    reader: CallReader | None = None

    def read(self, text: str, *, is_last: bool) -> tuple[str, list[dict[str, Any]]]:
        """What of an answer's text is said, and what is called."""
        if self.reader is None:
            return text, []
        said, calls = self.reader.push(text)
        described = [_describe(index, call) for index, call in enumerate(calls, len(self.tool_calls))]
        return said + (self.reader.flush() if is_last else ""), described


class Generation:
    """A generation: iterate `pieces()` for text as it comes, then read `answer()`."""

    def __init__(self, served: Served, body: GenerateRequest) -> None:
        self._served = served
        self._body = body
        calls = body.tools is not None and body.tool_choice != "none"
        answers = max(len(body.prompts), 1) * body.n
        self._choices = [_Choice(reader=CallReader(served.tool_use) if calls else None) for _ in range(answers)]
        self._prompts: list[tuple[int, ...]] = []
        self._started = time.perf_counter()
        self._loaded = self._started
        self._first_token: float | None = None
        self._queued_seconds = 0.0
        self._verdict: Future[None] | None = None

    async def pieces(self) -> AsyncGenerator[dict[str, Any], None]:
        """`{"index", "text"}` as text is generated, with `logprobs` where they were asked for, and
        `{"index", "tool_calls"}` as calls are made, each of them whole.

        Leaving the iteration early cancels the request. Raises UserError for what cannot be done, CorruptArtifact,
        IdentityMismatch or ServerError for an adapter that cannot be had, ServerError for a server that is too busy.
        """
        loop = self._served.loop
        with loop.place(self._body.tenant, len(self._choices)):
            requests = await self._prepare()
            outputs = loop.submit(requests, self._account(requests))
            index_of = {request.id: index for index, request in enumerate(requests)}
            try:
                while not all(choice.finish_reason for choice in self._choices):
                    output = await outputs.get()
                    await self._may_speak()
                    if isinstance(output, Exception):
                        raise self._blame(output)
                    for piece in self._take(index_of[output.request_id], output):
                        yield piece
            finally:
                loop.finish(index_of)

    def _account(self, requests: Sequence[Request]) -> Account:
        parts = {request.id: (index // self._body.n, len(request.prompt)) for index, request in enumerate(requests)}
        return Account(self._served.spool, self._body, parts)

    async def _may_speak(self) -> None:
        """Wait until the adapter is known to be fit to be served. Raises what is wrong with it."""
        if self._verdict is not None:
            # Others wait for the same verdict, and the engine has to be able to tell it.
            await asyncio.shield(asyncio.wrap_future(self._verdict))
            self._verdict = None

    async def _prepare(self) -> list[Request]:
        """Tokenise and check first, so that what cannot run costs nobody a load; then fetch a cold adapter."""
        body, served = self._body, self._served
        requests = await served.turns.run(body.tenant, self._read)
        self._prompts = [request.prompt for request in requests]
        loaded = await served.adapters.get(body.adapter, body.strength) if body.adapter is not None else None
        row = None
        if loaded is not None:
            row, self._verdict = loaded.row, loaded.verdict
        self._loaded = time.perf_counter()
        seed = body.seed
        return [
            replace(
                request,
                id=f"{body.request_id}-{place}-{index}",
                params=request.params if seed is None else replace(request.params, seed=seed + index),
                adapter=row,
            )
            for place, request in enumerate(requests)
            for index in range(body.n)
        ]

    def _read(self) -> list[Request]:
        """A request for each prompt as the engine takes it, without its adapter.

        For a thread: a long text takes seconds.
        """
        body, served = self._body, self._served
        inputs.check(body, served.loop.engine.max_length - 1, served.most_characters)
        if body.messages is not None:
            requests = [self._request("messages", lambda: served.renderer.prompt(body.messages or [], body.tools))]
        else:
            requests = [self._request(param, partial(self._encode, prompt)) for param, prompt in body.prompts.items()]
        grammar = self._grammar()
        return [replace(request, grammar=grammar) for request in requests]

    def _encode(self, prompt: str | list[int]) -> list[int]:
        return self._served.renderer.encode(prompt) if isinstance(prompt, str) else prompt

    def _request(self, param: str, encode: Callable[[], list[int]]) -> Request:
        """The request for one prompt, which `param` is the name of. Raises UserError."""
        body = self._body
        shown = self._served.tool_use.shown if self._choices[0].reader else {}
        try:
            request = Request(body.request_id, tuple(encode()), self._params(), tenant=body.tenant, shown=shown)
            self._served.loop.engine.check(request)
        except UserError as error:
            if error.param == "prompt":
                error.param = param
            raise
        return request

    def _blame(self, error: Exception) -> Exception:
        """An adapter that fails at another strength than its own may be sound."""
        strength = self._body.strength
        if not isinstance(error, CorruptArtifact) or self._body.adapter is None or abs(strength) <= 1:
            return error
        return UserError(
            f"at strength {strength:g} the adapter makes the model's output something that is not a number",
            param="strength",
            next_action="lower strength; 1 is the adapter as it was trained",
        )

    def _params(self) -> SamplingParams:
        body = self._body
        same = (
            "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty",
            "frequency_penalty", "logit_bias", "seed", "logprobs", "top_logprobs",
        )  # fmt: skip
        return SamplingParams(
            **{name: getattr(body, name) for name in same},
            stop=tuple(body.stop),
            stop_tokens=frozenset(body.stop_tokens),
            prompt_logprobs=body.echo and body.logprobs,
        )

    def _grammar(self) -> Grammar | None:
        body = self._body
        constrained = body.json_schema is not None or body.regex is not None
        if body.tools is not None and not (constrained and body.tool_choice == "none"):
            return self._grammar_of_calls(body.tools)
        if self._body.json_schema is not None:
            return self._served.grammars.json_schema(self._body.json_schema)
        return None if self._body.regex is None else self._served.grammars.regex(self._body.regex)

    def _grammar_of_calls(self, tools: list[dict[str, Any]]) -> Grammar:
        body, choice, parallel = self._body, self._body.tool_choice, self._body.parallel_tool_calls
        if isinstance(choice, dict):
            named = choice["function"]["name"]
            tools, choice, parallel = [tool for tool in tools if tool["function"]["name"] == named], "required", False
        lark = self._served.tool_use.grammar(tools, choice, parallel=parallel, schema=body.json_schema)
        return self._served.grammars.lark("tools", lark)

    def _take(self, index: int, output: Output) -> list[dict[str, Any]]:
        """Note an output; the pieces of the answer that it is."""
        choice = self._choices[index]
        if self._first_token is None:
            self._first_token = time.perf_counter()
            self._queued_seconds = output.queued_seconds
        first = choice.completion_tokens == 0
        said, calls = choice.read(output.text, is_last=output.finish_reason is not None)
        text = self._echo(index) + said if first and self._body.echo else said
        choice.text += text
        choice.tool_calls += calls
        choice.completion_tokens = output.completion_tokens
        choice.finish_reason, choice.stop = output.finish_reason or "", output.stop
        if choice.finish_reason == "stop" and choice.tool_calls:
            choice.finish_reason = "tool_calls"
        pieces: list[dict[str, Any]] = []
        if text or output.scores:
            pieces.append({"index": index, "text": text})
        if output.scores:
            pieces[0]["logprobs"] = [self._describe(score) for score in output.scores]
            choice.logprobs += pieces[0]["logprobs"]
        return [*pieces, *([{"index": index, "tool_calls": calls}] if calls else [])]

    def _echo(self, index: int) -> str:
        """The prompt that a choice continues, as text."""
        place = index // self._body.n
        prompt = list(self._body.prompts.values())[place]
        if isinstance(prompt, str):
            return prompt
        return b"".join(map(self._served.grammars.bytes_of, prompt)).decode(errors="replace")

    def _describe(self, score: TokenScore) -> dict[str, Any]:
        return {
            **self._token(score.token, score.logprob),
            "top_logprobs": [self._token(token, logprob) for token, logprob in score.top],
        }

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        data = self._served.grammars.bytes_of(token)
        return {"id": token, "token": data.decode(errors="replace"), "bytes": list(data), "logprob": logprob}

    def answer(self) -> dict[str, Any]:
        """The whole result, with a receipt of what made it."""
        body, basis = self._body, self._served.runtime.basis
        adapter = body.adapter
        now = time.perf_counter()
        prompt_tokens = sum(map(len, self._prompts))
        completion_tokens = sum(choice.completion_tokens for choice in self._choices)
        return {
            "id": body.request_id,
            "object": "generation",
            "base": self._served.runtime.name,
            "adapter_id": adapter.id if adapter else None,
            "text": self._choices[0].text,
            "finish_reason": self._choices[0].finish_reason,
            "choices": [
                {
                    "index": index,
                    "text": choice.text,
                    "tool_calls": [_without_index(call) for call in choice.tool_calls] or None,
                    "finish_reason": choice.finish_reason,
                    "stop": choice.stop,
                    "logprobs": choice.logprobs if body.logprobs else None,
                }
                for index, choice in enumerate(self._choices)
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
            "timing": {
                "load_ms": _milliseconds(self._loaded - self._started),
                "queue_ms": _milliseconds(self._queued_seconds),
                "first_token_ms": _milliseconds((self._first_token or now) - self._started),
                "total_ms": _milliseconds(now - self._started),
            },
            "receipt": {
                "base": self._served.runtime.name,
                "base_fingerprint": basis.base_fingerprint,
                "basis_fingerprint": basis.fingerprint,
                "adapter_id": adapter.id if adapter else None,
                "adapter_name": adapter.name if adapter else None,
                "adapter_version": adapter.version if adapter else None,
                "adapter_sha256": adapter.sha256 if adapter else None,
                "job_id": adapter.job_id if adapter else None,
                "step": adapter.step if adapter else None,
                "strength": body.strength if adapter else None,
                "alias": body.alias,
            },
        }


def _describe(index: int, call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": index, "id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function}


def _without_index(call: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if name != "index"}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
