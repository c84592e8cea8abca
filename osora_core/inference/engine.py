"""The inference engine: continuous batching, chunked prefill, an adapter a row."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from osora_core.bank import Bank
from osora_core.errors import OutOfSlots, UserError
from osora_core.inference.cache import CacheView, KVPool
from osora_core.inference.request import Request
from osora_core.inference.sampling import make_generator, sample
from osora_core.inference.slots import AdapterSlots
from osora_core.inference.text import TextStream
from osora_core.linear import use_slots
from osora_core.runtime import Runtime


@dataclass(frozen=True)
class Output:
    """What one step added to one request. The last output of a request has a finish_reason."""

    request_id: str
    text: str
    completion_tokens: int
    finish_reason: Literal["stop", "length"] | None = None


@dataclass(eq=False)
class _Sequence:
    request: Request
    slot: int
    stream: TextStream
    generator: torch.Generator | None
    cached: int = 0
    generated: list[int] = field(default_factory=list)


class InferenceEngine:
    """A plain object: not thread-safe, does nothing between calls of `step()`.

    `rows` requests run at once, `adapters` lie in the bank at once; further ones wait, first come first served.
    Sequences that decode fill pool rows [0, decoding), those still reading their prompt the rows behind.
    """

    def __init__(
        self, runtime: Runtime, *, rows: int = 32, adapters: int = 256, max_length: int | None = None,
        prefill_tokens: int = 2048,
    ) -> None:  # fmt: skip
        self.runtime = runtime
        self.max_length = min(max_length or runtime.max_length, runtime.max_length)
        self.slots = AdapterSlots(Bank(runtime.basis, max(adapters, rows), device=runtime.device))
        self.pool = KVPool(
            runtime.model.config, rows, self.max_length, dtype=runtime.model.dtype, device=runtime.device
        )
        self.prefill_tokens = prefill_tokens
        self.waiting: deque[Request] = deque()
        self._live: list[_Sequence] = []
        self._decoding = 0

    def check(self, request: Request) -> None:
        """Raise UserError for a request that can never run here."""
        if not request.prompt:
            raise UserError("the prompt is empty", param="prompt")
        if len(request.prompt) >= self.max_length:
            raise UserError(
                f"the prompt is {len(request.prompt)} tokens long; this base takes at most {self.max_length - 1}",
                param="prompt",
                next_action="shorten the prompt",
            )

    def add(self, request: Request) -> None:
        """Queue a request; it joins the batch at a coming step."""
        self.check(request)
        self.waiting.append(request)

    def cancel(self, request_id: str) -> None:
        """Forget a request, whatever it is doing; its row is free at once. Unknown ids are ignored."""
        self.waiting = deque(r for r in self.waiting if r.id != request_id)
        for row, sequence in enumerate(self._live):
            if sequence.request.id == request_id:
                self._remove(row)
                return

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self._live)

    @property
    def running(self) -> int:
        return len(self._live)

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Admit what fits, read a bounded piece of the prompts, then one token for every decoding row."""
        self._admit()
        outputs = self._prefill() if len(self._live) > self._decoding else []
        if self._decoding:
            outputs += self._decode()
        return outputs

    def _admit(self) -> None:
        while self.waiting and len(self._live) < self.pool.rows:
            request = self.waiting[0]
            try:
                slot = self.slots.acquire(request.adapter)
            except OutOfSlots:
                return
            self.waiting.popleft()
            stream = TextStream(self.runtime.tokenizer, request.params.stop)
            self._live.append(_Sequence(request, slot, stream, make_generator(request.params)))

    def _prefill(self) -> list[Output]:
        """Read up to `prefill_tokens` prompt tokens (padding included) of the rows behind the decoding ones."""
        rows = self._live[self._decoding :]
        chunks: list[tuple[int, ...]] = []
        longest = 0
        for sequence in rows:
            rest = sequence.request.prompt[sequence.cached :][: self.prefill_tokens]
            longest = max(longest, len(rest))
            if chunks and longest * (len(chunks) + 1) > self.prefill_tokens:
                break
            chunks.append(rest)
        rows = rows[: len(chunks)]
        longest = max(map(len, chunks))
        trash = self.pool.length
        ids = [list(c) + [0] * (longest - len(c)) for c in chunks]
        positions = [
            list(range(s.cached, s.cached + len(c))) + [trash] * (longest - len(c))
            for s, c in zip(rows, chunks, strict=True)
        ]
        hidden = self._forward(rows, self._decoding, ids, positions)
        finished = []
        for index, (sequence, chunk) in enumerate(zip(rows, chunks, strict=True)):
            sequence.cached += len(chunk)
            if sequence.cached == len(sequence.request.prompt):
                finished.append((sequence, hidden[index, len(chunk) - 1]))
        if not finished:
            return []
        for sequence, _ in finished:
            self._promote(sequence)
        return self._emit([s for s, _ in finished], torch.stack([h for _, h in finished]))

    def _promote(self, sequence: _Sequence) -> None:
        """Bring a sequence that has read its prompt to the end of the decoding rows."""
        row, first = self._live.index(sequence), self._decoding
        if row != first:
            other = self._live[first]
            self.pool.swap(row, first, max(sequence.cached, other.cached))
            self._live[first], self._live[row] = sequence, other
        self._decoding += 1

    def _decode(self) -> list[Output]:
        rows = self._live[: self._decoding]
        # A sequence promoted in this very step has its first token already and joins here with the others.
        ids = [[s.generated[-1]] for s in rows]
        positions = [[s.cached] for s in rows]
        hidden = self._forward(rows, 0, ids, positions)
        for sequence in rows:
            sequence.cached += 1
        return self._emit(rows, hidden[:, 0])

    def _forward(self, rows: list[_Sequence], start: int, ids: list[list[int]], positions: list[list[int]]) -> Tensor:
        """Hidden states [B, T, d] of the tokens `ids` at `positions`, rows starting at pool row `start`."""
        device = self.runtime.device
        where = torch.tensor(positions, device=device)
        read = 1 + max(p for row in positions for p in row if p < self.pool.length)
        cache = CacheView.of(self.pool, start, where, read)
        slots = torch.tensor([s.slot for s in rows], device=device)
        tokens = torch.tensor(ids, device=device)
        if not slots.any():
            return self.runtime.hidden_states(tokens, position_ids=where, cache=cache)
        with use_slots(self.slots.bank, slots):
            return self.runtime.hidden_states(tokens, position_ids=where, cache=cache)

    def _emit(self, rows: list[_Sequence], hidden: Tensor) -> list[Output]:
        """Sample a token for each row from hidden [B, d], turn it into text, drop the rows that ended."""
        logits = self.runtime.logits(hidden)
        tokens = sample(logits, [s.request.params for s in rows], [s.generator for s in rows])
        outputs = []
        for sequence, token in zip(rows, tokens, strict=True):
            output = self._advance(sequence, token)
            outputs.append(output)
            if output.finish_reason is not None:
                self._remove(self._live.index(sequence))
        return outputs

    def _advance(self, sequence: _Sequence, token: int) -> Output:
        request = sequence.request
        sequence.generated.append(token)
        count = len(sequence.generated)
        if token in self.runtime.eos_ids:
            return Output(request.id, sequence.stream.flush(), count, "stop")
        text, stopped = sequence.stream.push(token)
        if stopped:
            return Output(request.id, text, count, "stop")
        if count >= request.params.max_tokens or len(request.prompt) + count >= self.max_length:
            return Output(request.id, text + sequence.stream.flush(), count, "length")
        return Output(request.id, text, count)

    def _remove(self, row: int) -> None:
        """Take a sequence out and close the gap: the last decoding row moves in, then the last row of all."""
        sequence = self._live[row]
        self.slots.release(sequence.request.adapter)
        if row < self._decoding:
            self._fill(row, self._decoding - 1)
            row = self._decoding - 1
            self._decoding -= 1
        self._fill(row, len(self._live) - 1)
        self._live.pop()

    def _fill(self, target: int, source: int) -> None:
        if target != source:
            moved = self._live[source]
            self.pool.move(source, target, moved.cached)
            self._live[target] = moved
