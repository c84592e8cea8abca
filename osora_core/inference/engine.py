"""The inference engine: continuous batching, chunked prefill, an adapter a row."""

import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

import torch
from torch import Tensor

from osora_core.bank import Bank
from osora_core.errors import OsoraCoreError, UserError
from osora_core.fairness import FairQueue
from osora_core.inference import execution
from osora_core.inference.admission import Admission
from osora_core.inference.banks import Banks
from osora_core.inference.cache import KVPool, PoolSize
from osora_core.inference.live import Examination, Launched, LiveSequence
from osora_core.inference.lora_bank import LoraBank
from osora_core.inference.mix_bank import MixBank
from osora_core.inference.request import AdapterRow, Computed, LoraRow, Output, Request, TokenScore
from osora_core.inference.sampling import Sampler, sample, score, send
from osora_core.inference.slots import LARGEST_MIX, LORA_RANKS, MIXES, AdapterSlots, AllSlots, LoraSlots, MixSlots
from osora_core.inference.text import TextStream
from osora_core.inference.turns import StepTurns
from osora_core.runtime import Runtime

# A generated token takes a step of its own, a prompt's tokens share one (the weights of osora_core.fairness's paper).
PROMPT_WEIGHT = 1
TOKEN_WEIGHT = 2

_Reason = Literal["stop", "length"] | None
# Rows of logits that prompt log-probabilities are computed from at a time.
_SCORED_POSITIONS = 128
_CPU_PREFILL_TOKENS = 256  # which a CPU reads in a moment, and as fast as more at a time


class InferenceEngine:
    """A plain object: not thread-safe, does nothing between calls of `step()`.

    `rows` requests run at once, the others wait; tenants share the rows fairly, and none of them holds more than
    `tenant_share` of these, and of the tokens there is room for, unless it is with one request. Where `kv_bytes` hold
    the keys and values of fewer tokens than `rows` texts of `max_length`, there are fewer rows, or requests wait until
    those that run leave room for all that they may become, and at last texts are shorter: see `PoolSize`. The bank
    holds as many adapters as `adapters` says, and at least one for each row, so that no request ever waits for a slot.
    Plain LoRAs have a bank of their own, for `lora_ranks` in all, and so have the mixes of adapters, for `mixes` of
    size `largest_mix`; one that finds no room waits, and others pass it by.
    Rows [0, decoding) are those that decode; behind them are the rows whose prompts are still being read. A `brief`
    engine is for a few texts: it prepares nothing and leaves the model's weights where they are.

    Raises MemoryTooSmall where not even one short text fits.
    """

    def __init__(
        self, runtime: Runtime, *, rows: int = 32, adapters: int = 256, max_length: int | None = None,
        prefill_tokens: int = 2048, brief: bool = False, kv_bytes: float = math.inf, lora_ranks: int = LORA_RANKS,
        tenant_share: float = 1.0, largest_mix: int = LARGEST_MIX, mixes: int = MIXES,
    ) -> None:  # fmt: skip
        self.runtime = runtime
        length = min(max_length or runtime.max_length, runtime.max_length)
        dtype, device = runtime.model.dtype, runtime.device
        size = PoolSize.within(kv_bytes, runtime.config, rows, length, dtype=dtype, device=device)
        self.rows, self.max_length = size.lines, size.length
        bank = Bank(runtime.basis, max(adapters, self.rows), device=device, dtype=runtime.basis.dtype)
        self.slots = AdapterSlots(bank)
        self.pool = KVPool(runtime.config, size, dtype=dtype, device=device)
        self.loras = LoraSlots(LoraBank(runtime.basis, lora_ranks, device=device, dtype=dtype))
        mix_bank = MixBank(runtime.basis, mixes, largest_mix, device=device, dtype=runtime.basis.dtype)
        self.mixes = MixSlots(mix_bank)
        self.held = AllSlots(self.slots, self.loras, self.mixes)
        self._admission = Admission(size, self.loras, self.mixes, tenant_share)
        banks = Banks(bank, self.loras.bank, mix_bank)
        self._execution = execution.choose(runtime, self.pool, banks, brief=brief)
        self._ahead = self._execution.ahead
        self._turns = None if self._ahead else StepTurns(shares=self._execution.skips)
        self._launched: Launched | None = None
        self.prefill_tokens = prefill_tokens
        self._beside_decoding = min(prefill_tokens, _CPU_PREFILL_TOKENS) if device.type == "cpu" else prefill_tokens
        self.vocabulary = int(runtime.config.vocab_size)
        self._waiting = FairQueue[Request](lambda request: PROMPT_WEIGHT * len(request.prompt))
        self._since: dict[str, float] = {}
        self._examinations: deque[tuple[Request, Examination]] = deque()
        self._live: list[LiveSequence] = []
        self._decoding = 0

    def warm_up(self) -> None:
        """Compile and capture all that steps may need, so that no request waits for it."""
        self._execution.warm_up()

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
        params, last = request.params, self.vocabulary - 1
        named = (("prompt", request.prompt), ("logit_bias", params.logit_bias), ("stop_tokens", params.stop_tokens))
        for param, tokens in named:
            wrong = next((token for token in tokens if not 0 <= token <= last), None)
            if wrong is not None:
                raise UserError(f"{param} names token {wrong}; this base has tokens 0 to {last}", param=param)

    def add(self, request: Request) -> None:
        """Queue a request; it joins the batch at a coming step."""
        self.check(request)
        self._waiting.push(request)
        self._since[request.id] = time.perf_counter()

    def examine(
        self, adapter: AdapterRow | LoraRow, tokens: Sequence[int], ids: Tensor, answer: "Future[Tensor]"
    ) -> None:
        """Set `answer` to the log-probabilities of ids [T, k] after each of T tokens, float32 [T, k] on the CPU.

        It goes ahead of waiting requests and is read together with their prompts: it costs one row for a step.
        Raises UserError for tokens that can never be read here.
        """
        if len(tokens) > self.max_length:
            raise UserError(f"{len(tokens)} tokens are to be examined; this engine reads at most {self.max_length}")
        request = Request("examination", tuple(tokens), adapter=adapter)
        self._examinations.append((request, Examination(ids, answer)))

    def cancel(self, request_id: str) -> Computed | None:
        """Forget a request, whatever it is doing; its row is free at once. None if it is unknown, or has not begun."""
        if self._since.pop(request_id, None) is not None:
            self._waiting.remove(request_id)
            return None
        for row, sequence in enumerate(self._live):
            if sequence.request.id == request_id:
                self._remove(row)
                return sequence.computed
        return None

    @property
    def execution(self) -> str:
        """The name of what runs its passes."""
        return type(self._execution).__name__

    @property
    def busy(self) -> bool:
        return bool(self._since or self._examinations or self._live or self._launched)

    @property
    def running(self) -> int:
        """Requests that have a row."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Requests that wait for a row."""
        return len(self._since)

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Admit what fits; one more token for every decoding row and a bounded piece of the prompts, in one pass.

        Where the device computes by itself, the next pass is launched before this one's tokens become text.
        """
        outputs = self._admit()
        launched = self._launched or self._launch({})
        if launched is None:
            return outputs
        sequences, logits = self._take(launched)
        tokens, scores = self._choose(sequences, logits)
        self._launched = self._launch(dict(zip(sequences, tokens, strict=True))) if self._ahead else None
        return outputs + self._emit(sequences, tokens, scores)

    def _admit(self) -> list[Output]:
        """Give rows to requests that wait. One that cannot start fails alone."""
        failures, without_ranks = [], []
        live = [sequence.request for sequence in self._live]
        while self._examinations and self._admission.has_room([*live, self._examinations[0][0]]):
            request, examination = self._examinations.popleft()
            if not self._admission.has_ranks([*live, request]):
                without_ranks.append((request, examination))
                continue
            try:
                self._start(request, 0.0, examination)
                live.append(request)
            except Exception as error:
                examination.answer.set_exception(error)
        admitted: list[Request] = []
        if not self._examinations:
            admitted = self._admission.admit(self._waiting, live, one_waits=bool(without_ranks))
        self._examinations.extendleft(reversed(without_ranks))
        # Neighbours of about the same length are read with little padding.
        for request in sorted(admitted, key=lambda request: len(request.prompt)):
            queued = time.perf_counter() - self._since.pop(request.id)
            try:
                self._start(request, queued)
            except Exception as error:
                failures.append(Output(request.id, "", 0, "error", queued_seconds=queued, error=error))
        return failures

    def _start(self, request: Request, queued: float, examination: Examination | None = None) -> None:
        sampler = Sampler(request, self.vocabulary, self.runtime.device)
        stream = TextStream(self.runtime.tokenizer, request.prompt, request.params.stop, request.shown)
        self._execution.join(len(self._live), self.held.acquire(request.adapter))
        self._live.append(LiveSequence(request, stream, sampler, queued, examination=examination))

    def _launch(self, chosen: dict[LiveSequence, int | OsoraCoreError]) -> Launched | None:
        """Compute logits for every decoding row, after the token that was `chosen` for it just now or its last one,
        and for the prompts that are read to their ends meanwhile. None if there is nothing to compute."""
        tokens, positions, rows = self._next(chosen)
        reading, chunks = self._unread()
        if not reading:
            return Launched(rows, self._execution.decode(tokens, positions), []) if rows else None
        cached = [sequence.cached for sequence in reading]
        hidden, read = self._execution.decode_and_read(tokens, positions, chunks, cached)
        begun, examinations = self._have_read(reading, chunks, read)
        rows |= {row: sequence for row, (sequence, _) in enumerate(begun, len(tokens))}
        last = [states.unsqueeze(0) for _, states in begun]
        logits = self.runtime.logits(torch.cat([hidden, *last])) if rows else hidden
        return Launched(rows, logits, examinations)

    def _take(self, launched: Launched) -> tuple[list[LiveSequence], Tensor]:
        """The sequences of a pass that are still there, and their logits. Answers its examinations."""
        for examination in launched.examinations:
            examination.answer.set_result(torch.cat(examination.found).cpu())
        logits, rows = launched.logits, launched.rows
        present = [row for row, sequence in rows.items() if not sequence.gone]
        if present and len(present) < logits.shape[0]:
            logits = logits[send(present, logits.device)]
        return [rows[row] for row in present], logits

    def _unread(self) -> tuple[list[LiveSequence], list[tuple[int, ...]]]:
        """Up to `prefill_tokens` prompt tokens (padding included) of the rows behind the decoding ones."""
        rows = self._live[self._decoding :]
        most = self._beside_decoding if self._decoding else self.prefill_tokens
        chunks: list[tuple[int, ...]] = []
        longest = 0
        for sequence in rows:
            rest = sequence.request.prompt[sequence.cached :][:most]
            longest = max(longest, len(rest))
            if chunks and longest * (len(chunks) + 1) > most:
                break
            chunks.append(rest)
        return rows[: len(chunks)], chunks

    def _have_read(
        self, rows: Sequence[LiveSequence], chunks: Sequence[tuple[int, ...]], hidden: Sequence[Tensor]
    ) -> tuple[list[tuple[LiveSequence, Tensor]], list[Examination]]:
        """Chunks came out as these hidden states [len, d]: the sequences whose prompts are read to their ends, which
        decode from now on, with their last states [d]; and the examinations that are over."""
        finished = []
        for sequence, chunk, states in zip(rows, chunks, hidden, strict=True):
            if sequence.examination is not None:
                self._look_up(sequence.examination, sequence.cached, states)
            if sequence.request.params.prompt_logprobs:
                self._score_prompt(sequence, states)
            sequence.cached += len(chunk)
            if sequence.cached == len(sequence.request.prompt):
                finished.append((sequence, states[-1]))
        # A prompt that is not read to its end filled the budget alone, so those that are lie at the front.
        self._decoding += len(finished)
        examinations = []
        for sequence, _ in finished:
            if sequence.examination is not None:
                self._remove(self._live.index(sequence))
                examinations.append(sequence.examination)
        return [(sequence, states) for sequence, states in finished if sequence.examination is None], examinations

    def _look_up(self, examination: Examination, first: int, hidden: Tensor) -> None:
        """Note the log-probabilities after the tokens from `first` on, whose hidden states [T, d] these are."""
        logprobs = self.runtime.logits(hidden).float().log_softmax(dim=-1)
        ids = examination.ids[first : first + len(hidden)]
        asked = send(ids.flatten().tolist(), hidden.device).view_as(ids)
        examination.found.append(logprobs.gather(1, asked))

    def _score_prompt(self, sequence: LiveSequence, hidden: Tensor) -> None:
        """Score the prompt tokens that the chunk's hidden states [T, d] predict."""
        prompt = sequence.request.prompt
        if sequence.cached == 0:
            sequence.prompt_scores.append(TokenScore(prompt[0], None))
        following = prompt[sequence.cached + 1 :][: hidden.shape[0]]
        for start in range(0, len(following), _SCORED_POSITIONS):
            tokens = following[start : start + _SCORED_POSITIONS]
            logits = self.runtime.logits(hidden[start : start + len(tokens)])
            sequence.prompt_scores += score(logits, tokens, [sequence.request.params.top_logprobs] * len(tokens))

    def _next(
        self, chosen: dict[LiveSequence, int | OsoraCoreError]
    ) -> tuple[list[int], list[int], dict[int, LiveSequence]]:
        """What `_launch` decodes: each row's token and position, and the rows that take part: which do not end with
        that token, and have a turn."""
        tokens, positions, rows = [], [], {}
        decoding = self._live[: self._decoding]
        is_reading = len(self._live) > self._decoding
        left_out = self._turns.left_out(decoding, others=is_reading) if self._turns is not None and decoding else ()
        for row, sequence in enumerate(decoding):
            token = chosen[sequence] if sequence in chosen else sequence.generated[-1]
            count = len(sequence.generated) + (sequence in chosen)
            if (
                sequence in left_out
                or isinstance(token, OsoraCoreError)
                or self._stops(sequence, token)
                or self._fills(sequence, count)
            ):
                tokens.append(0)
                positions.append(-1)
            else:
                tokens.append(token)
                positions.append(sequence.cached)
                sequence.cached += 1
                rows[row] = sequence
        return tokens, positions, rows

    def _choose(
        self, rows: list[LiveSequence], logits: Tensor
    ) -> tuple[list[int | OsoraCoreError], dict[int, TokenScore]]:
        """A token for each row of logits [B, V], and the scores of those that asked for them."""
        if not rows:
            return [], {}
        tokens = sample(logits, [s.sampler for s in rows])
        scored = [i for i, s in enumerate(rows) if s.request.params.logprobs and isinstance(tokens[i], int)]
        if not scored:
            return tokens, {}
        top = [rows[i].request.params.top_logprobs for i in scored]
        found = score(logits[scored], [t for i in scored if isinstance(t := tokens[i], int)], top)
        return tokens, dict(zip(scored, found, strict=True))

    def _emit(
        self, rows: list[LiveSequence], tokens: list[int | OsoraCoreError], scores: dict[int, TokenScore]
    ) -> list[Output]:
        """Turn each row's token into text, and drop the rows that ended."""
        outputs = []
        for index, (sequence, token) in enumerate(zip(rows, tokens, strict=True)):
            try:
                if isinstance(token, Exception):
                    raise token
                output = self._advance(sequence, token, scores.get(index))
            except Exception as error:
                count = len(sequence.generated)
                output = Output(sequence.request.id, "", count, "error", (), sequence.queued_seconds, error)
            outputs.append(output)
            if output.finish_reason is not None:
                self._remove(self._live.index(sequence))
        return outputs

    def _advance(self, sequence: LiveSequence, token: int, token_score: TokenScore | None) -> Output:
        request, stream = sequence.request, sequence.stream
        sequence.generated.append(token)
        self._waiting.charge(request.tenant, TOKEN_WEIGHT)
        count = len(sequence.generated)
        ends = self._stops(sequence, token)
        own = () if token_score is None or ends else (token_score,)
        scores = (*sequence.prompt_scores, *own)
        sequence.prompt_scores = []

        def output(text: str, finish_reason: _Reason = None, stop: str | None = None) -> Output:
            return Output(request.id, text, count, finish_reason, scores, sequence.queued_seconds, stop=stop)

        if ends:
            return output(stream.flush(), "stop")
        sequence.sampler.accept(token)
        text, stop = stream.push(token)
        if stop is not None:
            return output(text, "stop", stop)
        if sequence.sampler.is_complete:
            return output(text + stream.flush(), "stop")
        if self._fills(sequence, count):
            return output(text + stream.flush(), "length")
        return output(text)

    def _stops(self, sequence: LiveSequence, token: int) -> bool:
        """Whether a token ends the text of a sequence."""
        return token in self.runtime.eos_ids or token in sequence.request.params.stop_tokens

    def _fills(self, sequence: LiveSequence, count: int) -> bool:
        """Whether a sequence may have no more than `count` tokens."""
        request = sequence.request
        return count >= request.params.max_tokens or len(request.prompt) + count >= self.max_length

    def _remove(self, row: int) -> None:
        """Take a sequence out and close the gap: the last decoding row moves in, then the last row of all."""
        sequence = self._live[row]
        sequence.gone = True
        self.held.release(sequence.request.adapter)
        self._execution.leave(row, sequence.cached)
        if row < self._decoding:
            self._fill(row, self._decoding - 1)
            row = self._decoding - 1
            self._decoding -= 1
        self._fill(row, len(self._live) - 1)
        self._live.pop()

    def _fill(self, target: int, source: int) -> None:
        if target != source:
            moved = self._live[source]
            self._execution.move(source, target, moved.cached)
            self._live[target] = moved
