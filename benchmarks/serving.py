"""Serving: mixed batches of adapters against the bare base in the same engine, and against peers, in one run.

    python -m benchmarks.serving [--json PATH]
    python -m benchmarks.serving --device cuda [--layers 8] [--json PATH]

On a CPU the base is osora-tiny, on a GPU a random one with Llama-8B's shapes, unless --base names another. Every
request has a prompt and an answer of its own length. All answers of mixed batches are compared with those that the same
requests get alone. Ratios are medians over repeats, each of which measures both sides.
"""

import argparse
import asyncio
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from random import Random
from statistics import median

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from benchmarks import report, serving_peers
from benchmarks.serving_workload import (
    CONTENTS,
    LONGEST_ANSWER,
    LONGEST_PROMPT,
    RANDOM,
    Checker,
    Clock,
    Measured,
    Question,
    decode_rate,
    load_runtime,
    make_values,
    percentile,
    random_runtime,
    serve,
)
from inference.adapters import AdapterLoader, Loaded, judged
from inference.schemas import AdapterRef
from osora_core import canary
from osora_core.adapter import Adapter
from osora_core.inference import AdapterRow, InferenceEngine, Output, Request
from osora_core.runtime import Runtime

BATCHES = {"cpu": (1, 8, 32), "cuda": (1, 8, 64, 256)}
# Of the store: most of them while the clients are in step no longer.
REQUESTS = {"cpu": 64, "cuda": 256}
COLUMNS = {
    "case": "32", "batch": "5d", "adapters": "8d", "registered": "10d", "tokens_per_second": "10.1f",
    "ttft_p50_ms": "11.2f", "ttft_p95_ms": "11.2f", "itl_p50_ms": "10.2f", "itl_p95_ms": "10.2f", "itl_p99_ms": "10.2f",
    "milliseconds": "12.3f", "kilobytes": "9.1f", "of_base": "7.3f",
}  # fmt: skip
DECODE_STEPS = 32
MIXES = (16, 32, 64)
CLIENTS = 32
COLD_LOADS = 50
# A load that has ended is known after as many turns of the event loop. A server's turns while its engine computes.
LOOP_TURNS = 4
# Of the store: few, so that the answers of all pairs can be computed alone.
STORED_CONTENTS, QUESTIONS = 8, 3


class Benchmark:
    """The base, what to measure it with, and what came out."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.batches = BATCHES[options.device]
        self.base = options.base or ("osora-tiny" if options.device == "cpu" else RANDOM)
        self.runtime: Runtime
        if self.base == RANDOM:
            self.runtime = random_runtime(options.layers, options.rank)
        else:
            self.runtime = load_runtime(self.base, options.device, options.cache or folder, options.threads)
        self.rank = min(options.rank, self.runtime.basis.rank)
        self.report = report.Report(options.device, COLUMNS)
        self.checker = Checker(self.runtime, self.rank)
        self.rates: dict[str, float] = {}
        self.length = LONGEST_PROMPT + LONGEST_ANSWER
        self._rows: dict[tuple[int, int, int], AdapterRow] = {}

    def row(self, content: int, rank: int | None = None, mix: int = 0) -> AdapterRow:
        key = content, rank or self.rank, mix
        if key not in self._rows:
            name = f"content-{content}-r{key[1]}-c{mix}"
            self._rows[key] = AdapterRow(name, make_values(self.runtime, *key), key[1], mix)
        return self._rows[key]

    @property
    def row_bytes(self) -> int:
        """What an adapter takes in bank and host memory."""
        return self.runtime.basis.row_length * self.runtime.basis.dtype.itemsize

    def engine(self, rows: int, adapters: int, length: int | None = None) -> InferenceEngine:
        return InferenceEngine(
            self.runtime, rows=rows, adapters=adapters, max_length=length or self.length, mixes=adapters
        )

    def mixed_against_bare(self) -> None:
        """Batches in which every row has another adapter, and the same requests on the bare base."""
        for batch in self.batches:
            rows = [self.row(content) for content in range(batch)]
            questions = [Question.of(self.runtime, number) for number in range(batch * self.options.rounds)]
            plain = [q.request(f"{i}", None) for i, q in enumerate(questions)]
            mixed = [q.request(f"{i}", rows[i % batch]) for i, q in enumerate(questions)]
            engine = self.engine(batch, batch)
            pairs = []
            # Once, so that nothing is compiled or captured while it is measured.
            serve(engine, plain, batch), serve(engine, mixed, batch)
            for _ in range(self.options.repeats):
                pairs.append((serve(engine, plain, batch), serve(engine, mixed, batch)))
                if batch <= CONTENTS:
                    answers = pairs[-1][1].answers
                    self.checker.check((i % batch, i, answers[f"{i}"]) for i in range(len(mixed)))
            for case, index, adapters in (("bare base", 0, 0), (f"adapters of rank {self.rank}", 1, batch)):
                best = sorted((pair[index] for pair in pairs), key=lambda m: m.tokens_per_second)[len(pairs) // 2]
                self.report.add(case=case, batch=batch, adapters=adapters, **best.columns())
                self.rates[f"{case} {batch}"] = best.tokens_per_second
            self.rates[f"served {batch}"] = median(b.tokens_per_second / a.tokens_per_second for a, b in pairs)

    def decoding(self) -> None:
        """Decode steps alone, at the largest batches: without prompts, joins and leaves."""
        for batch in self.batches[-2:] if self.options.device == "cuda" else self.batches[-1:]:
            prompt = tuple(range(10, 10 + 24))
            engine = self.engine(batch, 2 * batch, 24 + 2 * DECODE_STEPS)
            # The kernels of a GPU compute all triplets of the basis, whatever the adapters' rank.
            for rank in (self.rank,) if self.options.device == "cuda" else (self.rank, min(16, self.rank)):
                rows = [self.row(content, rank) for content in range(batch)]
                plain = [Request(f"{i}", prompt) for i in range(batch)]
                mixed = [Request(f"{i}", prompt, adapter=row) for i, row in enumerate(rows)]
                pairs = [
                    (decode_rate(engine, plain, DECODE_STEPS), decode_rate(engine, mixed, DECODE_STEPS))
                    for _ in range(2 * self.options.repeats)
                ]
                bare, with_adapters = (median(side) for side in zip(*pairs, strict=True))
                self.rates[f"decoding {batch} rank {rank}"] = median(b / a for a, b in pairs)
                self.report.add(case="decoding, bare base", batch=batch, adapters=0, tokens_per_second=bare)
                self.report.add(
                    case=f"decoding, rank {rank}", batch=batch, adapters=batch, tokens_per_second=with_adapters
                )

    def mixes(self) -> None:
        """Decode steps alone, as above: adapters without a mix, with mixes of each size, and half of them with one."""
        for batch in self.batches[-2:] if self.options.device == "cuda" else self.batches[-1:]:
            prompt = tuple(range(10, 10 + 24))
            engine = self.engine(batch, 5 * batch, 24 + 2 * DECODE_STEPS)
            sizes = {"no mix": (0,), **{f"mix {c}": (c,) for c in MIXES}, "half without, half mix 32": (0, 32)}
            sides = {
                case: [Request(f"{i}", prompt, adapter=self.row(i, mix=own[i % len(own)])) for i in range(batch)]
                for case, own in sizes.items()
            }
            sides["bare base"] = [Request(f"{i}", prompt) for i in range(batch)]
            rates: dict[str, list[float]] = {case: [] for case in sides}
            for repeat in range(1 + self.options.repeats):
                for case, requests in sides.items():
                    rate = decode_rate(engine, requests, DECODE_STEPS)
                    rates[case] += [rate] if repeat else []  # the first compiles and captures
            for case, measured in rates.items():
                self.report.add(
                    case=f"decoding, {case}", batch=batch, tokens_per_second=median(measured),
                    of_base=median(a / b for a, b in zip(measured, rates["bare base"], strict=True)),
                )  # fmt: skip

    def peers(self) -> None:
        """The same uneven questions, for transformers and PEFT."""
        batch = 64 if self.options.device == "cuda" else 32
        questions = [Question.of(self.runtime, number) for number in range(batch * self.options.rounds)]
        model = serving_peers.load_model(self.base, self.options.device, self.options.layers)
        static, mixed = "transformers generate, static", f"PEFT LoRA r={serving_peers.LORA_RANK}, mixed"
        with self.report.guard(case=static, batch=batch):
            rates = [serving_peers.static_generate(model, questions, batch) for _ in range(self.options.repeats)]
            self.rates["static"] = median(rates)
            self.report.add(case=static, batch=batch, adapters=0, tokens_per_second=self.rates["static"])
        with self.report.guard(case=mixed, batch=batch):
            # A batch is enough: on a CPU it takes as long as all of the others together, on a GPU a second a token.
            few = 8 if self.options.device == "cuda" else LONGEST_ANSWER
            asked = [replace(question, max_tokens=min(few, question.max_tokens)) for question in questions[:batch]]
            self.rates["peft"] = serving_peers.peft_mixed(model, asked, batch)
            self.report.add(case=mixed, batch=batch, adapters=batch, tokens_per_second=self.rates["peft"])
        with self.report.guard(case="transformers continuous batching", batch=batch):
            rate = serving_peers.continuous_batching(model, questions)
            self.report.add(case="transformers continuous batching", adapters=0, tokens_per_second=rate)

    def registered(self) -> None:
        """One adapter or many registered in a store, read by the server's own loader; zipf traffic past the bank."""
        many, asked = self.options.registered, self.options.requests or REQUESTS[self.options.device]
        bank = max(CLIENTS, many // 10)
        store = AdapterStore(self.runtime, self.folder / "store", self.rank, many)
        random = Random(0)
        weights = [1 / (index + 1) for index in range(many)]
        zipf = [random.choices(range(many), weights, k=asked) for _ in range(1 + self.options.repeats)]
        everything = sorted({index for draw in zipf for index in draw})
        full = Node(self, store, bank, warm=range(bank))
        all_warm = Node(self, store, len(everything), warm=everything)
        spread: list[list[Measured]] = []
        for _ in range(1 + self.options.repeats):
            uniform = [random.randrange(bank) for _ in range(asked)]
            spread.append([full.serve([0] * asked), full.serve(uniform)])
        # From here on the full node turns over what it holds: each draw finds what the ones before it left.
        turning = [[all_warm.serve(draw), full.serve(draw)] for draw in zipf]
        sides = [[*one, *other] for one, other in zip(spread[1:], turning[1:], strict=True)]
        cases = (("one registered", 1, 1), ("a full bank", bank, many), ("zipf, all of it warm", len(everything), many),
                 ("zipf, past the bank", bank, many))  # fmt: skip
        for (case, adapters, registered), measured in zip(cases, zip(*sides, strict=True), strict=True):
            middle = sorted(measured, key=lambda m: m.tokens_per_second)[len(measured) // 2]
            self.report.add(case=case, batch=CLIENTS, adapters=adapters, registered=registered, **middle.columns())
        self.rates["registered"] = median(side[1].tokens_per_second / side[0].tokens_per_second for side in sides)
        self.rates["zipf"] = median(side[3].tokens_per_second / side[2].tokens_per_second for side in sides)
        self.rates["zipf ttft"] = median(
            percentile(side[3].first_token, 95) / percentile(side[2].first_token, 95) for side in sides
        )
        cold = Node(self, store, 1, warm=[0])
        last = range(max(0, many - COLD_LOADS), many)
        # Twice, and nothing stays: the second time, the process has checked them before.
        first, again = ([cold.load(index) for index in last] for _ in range(2))
        self.rates["first load"], self.rates["cold load"] = median(first), median(again)
        for case, loads in (("first load, with its canary", first), ("cold load", again)):
            self.report.add(case=f"{case}, median", registered=many, milliseconds=median(loads))
            self.report.add(case=f"{case}, p95", registered=many, milliseconds=percentile(loads, 95))
        self.report.add(case="adapter in the bank", kilobytes=self.row_bytes / 1024)
        self.report.add(case="adapter in the store", kilobytes=store.bytes / 1024)

    def judge(self) -> None:
        """Every target of the serving engine, met or not; those of another device are not measured."""
        rates, cuda = self.rates, self.options.device == "cuda"

        def at_least(name: str, key: str, wanted: float, unit: str = "of its peer") -> None:
            value = rates.get(key)
            self.report.target(name, value, unit, f">= {wanted}", value is not None and value >= wanted)

        def at_most(name: str, value: float | None, wanted: float, unit: str) -> None:
            self.report.target(name, value, unit, f"<= {wanted}", value is not None and value <= wanted)

        served = rates.get(f"adapters of rank {self.rank} {64 if cuda else 32}")
        for peer in ("static", "peft"):
            if served is not None and peer in rates:
                rates[f"over {peer}"] = served / rates[peer]
        if cuda:
            at_least("decoding, 64 adapters against the bare base", f"decoding 64 rank {self.rank}", 0.92)
            at_least("decoding, 256 adapters against the bare base", f"decoding 256 rank {self.rank}", 0.90)
            at_least("64 adapters against PEFT's mixed batch", "over peft", 5)
        else:
            at_least("32 adapters against the bare base", "served 32", 0.85)
            at_least("32 adapters against transformers' static generate", "over static", 1.3)
        at_least(f"{self.options.registered} registered against one", "registered", 0.95)
        at_least("zipf past the bank against all of it warm: tokens/s", "zipf", 0.8)
        at_most("zipf past the bank against all of it warm: p95 TTFT", rates.get("zipf ttft"), 2, "times")
        for case, what in (("cold load", ""), ("first load", ", its canary included")):
            at_most(f"{case} from a local store{what}", rates.get(case), 20 if cuda else 5, "ms")
        checked = self.checker
        wrong = float(checked.wrong) if checked.compared else None
        at_most(f"wrong answers among {checked.compared} of mixed batches", wrong, 0, "answers")
        if cuda:
            print(f"A token of a mixed batch was at most {checked.gap:.3f} nats less likely than the likeliest alone.")


def batched(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Runs of at most `size` of them."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


class AdapterStore:
    """Registered adapters, each with bytes and a hash of its own. Beyond STORED_CONTENTS, vectors repeat: such a file
    differs from another in the comment of the ZIP, which is its number."""

    def __init__(self, runtime: Runtime, folder: Path, rank: int, count: int) -> None:
        self._folder = folder
        self._basis = runtime.basis
        self._hashes = []
        folder.mkdir(parents=True)
        for content in range(STORED_CONTENTS):
            row, modules = make_values(runtime, content, rank).float(), set(runtime.basis.target_modules)
            adapter = Adapter.from_row(row, runtime.basis, rank=rank, modules=modules, base=runtime.name)
            data = replace(adapter, canary=canary.compute(runtime, adapter)).to_zip()
            # A ZIP ends with the length of its comment and the comment.
            data = data[:-2] + len(self._comment(0)).to_bytes(2, "little")
            (folder / f"{content}").write_bytes(data)
            self._hashes.append(hashlib.sha256(data))
        self.bytes = len(data) + len(self._comment(0))

    @staticmethod
    def _comment(index: int) -> bytes:
        return f"{index:08d}".encode()

    def get(self, key: str) -> memoryview:
        path, comment = self._folder / f"{int(key) % STORED_CONTENTS}", self._comment(int(key))
        # Without holding up other threads, as a store's client does not either.
        data = np.empty(path.stat().st_size + len(comment), np.uint8).data
        with path.open("rb", buffering=0) as file:
            file.readinto(data[: -len(comment)])
        data[-len(comment) :] = comment
        return data

    def ref(self, index: int) -> AdapterRef:
        digest = self._hashes[index % STORED_CONTENTS].copy()
        digest.update(self._comment(index))
        return AdapterRef(
            id=f"adp-{index}", name=f"ft:{index}", version=1, object_key=f"{index}", sha256=digest.hexdigest(),
            base_fingerprint=self._basis.base_fingerprint, basis_fingerprint=self._basis.fingerprint,
        )  # fmt: skip


class Node:
    """An inference server without HTTP: the loader and an engine. Host memory holds as many adapters as the bank."""

    def __init__(self, benchmark: Benchmark, store: AdapterStore, bank: int, warm: Sequence[int]) -> None:
        self._benchmark = benchmark
        self._store = store
        self._engine = benchmark.engine(CLIENTS, bank)
        self._engine.warm_up()
        self._loader = AdapterLoader(store.get, benchmark.runtime.basis, bank * benchmark.row_bytes, self._check)
        self._examinations: SimpleQueue[Callable[[], None]] = SimpleQueue()
        for few in batched(warm, CLIENTS):
            asyncio.run(self._load(few))

    def load(self, index: int) -> float:
        """Milliseconds that it takes to bring an adapter into the bank."""
        return asyncio.run(self._load([index]))

    def serve(self, asked: Sequence[int]) -> Measured:
        """One request for each adapter asked for, from CLIENTS clients that each send one after another."""
        measured = asyncio.run(self._serve(asked))
        self._benchmark.checker.check(
            (index % STORED_CONTENTS, place % QUESTIONS, measured.answers[f"{place}"])
            for place, index in enumerate(asked)
        )
        return measured

    def _check(self, adapter: Adapter, row: AdapterRow) -> "Future[None] | None":
        """As the server does, on a thread of the loader's."""
        published, answer = canary.read(self._benchmark.runtime, adapter), Future[torch.Tensor]()
        if published is None:
            return None
        self._examinations.put(partial(self._engine.examine, row, published.tokens, published.ids, answer))
        return judged(answer, published.judge)

    async def _load(self, indices: Sequence[int]) -> float:
        start = time.perf_counter()
        loading = [asyncio.create_task(self._loader.get(self._store.ref(index), 1.0)) for index in indices]
        while not all(task.done() and _known(task.result().verdict) for task in loading):
            await self._tick([task for task in loading if not task.done()])
        rows = [task.result().row for task in loading]
        for row in rows:
            self._engine.slots.acquire(row)
        if self._benchmark.options.device == "cuda":
            torch.cuda.synchronize()
        taken = 1000 * (time.perf_counter() - start)
        for row in rows:
            self._engine.slots.release(row)
        return taken

    async def _serve(self, asked: Sequence[int]) -> Measured:
        clock, places = Clock(), iter(enumerate(asked))
        loading: dict[asyncio.Task[Loaded], Request] = {}
        verdicts: dict[str, Future[None] | None] = {}
        left = len(asked)
        while left or loading or self._engine.busy:
            while left and clock.open < CLIENTS:
                place, index = next(places)
                left -= 1
                clock.begin(f"{place}")
                request = Question.of(self._benchmark.runtime, place % QUESTIONS).request(f"{place}", None)
                loading[asyncio.create_task(self._loader.get(self._store.ref(index), 1.0))] = request
            outputs = await self._tick(loading)
            # A server lets nothing out before: that it never has to wait is part of what is measured.
            assert all(_known(verdicts[output.request_id]) for output in outputs)
            clock.take(outputs)
            for task in [task for task in loading if task.done()]:
                request = replace(loading.pop(task), adapter=task.result().row)
                verdicts[request.id] = task.result().verdict
                self._engine.add(request)
        return clock.measured

    async def _tick(self, loading: Iterable[asyncio.Task[Loaded]]) -> list[Output]:
        """Let loads go on, and then the engine, if it has something to do; if not, wait for them.

        The engine steps in this thread, which has computed before: a second one would compete for the cores.
        """
        for _ in range(LOOP_TURNS):
            await asyncio.sleep(0)
        if not self._engine.busy and self._examinations.empty() and not any(task.done() for task in loading):
            await asyncio.wait(loading, return_when=asyncio.FIRST_COMPLETED)
        while not self._examinations.empty():
            self._examinations.get()()
        return self._engine.step() if self._engine.busy else []


def _known(verdict: "Future[None] | None") -> bool:
    """Whether an adapter may be served; raises if it is known not to be."""
    return verdict is None or (verdict.done() and verdict.result() is None)


PARTS: dict[str, Callable[[Benchmark], None]] = {
    "served": Benchmark.mixed_against_bare,
    "decoding": Benchmark.decoding,
    "mixes": Benchmark.mixes,
    "registered": Benchmark.registered,
    "peers": Benchmark.peers,
}


def main() -> None:
    """The command."""
    parser = report.parser(__doc__)
    parser.add_argument("--base", help="name or path (default: osora-tiny on a CPU, random Llama-8B shapes on a GPU)")
    parser.add_argument("--layers", type=int, default=32, help="of the random base (default: %(default)s)")
    parser.add_argument("--cache", type=Path, help="where to keep the basis; default: a directory that is deleted")
    parser.add_argument("--rank", type=int, default=128, help="of the adapters (default: %(default)s)")
    parser.add_argument("--registered", type=int, default=10_000, help="adapters in the store (default: %(default)s)")
    usual = f"default: {REQUESTS['cpu']}; on a GPU {REQUESTS['cuda']}"
    parser.add_argument("--requests", type=int, help=f"a measurement of the store ({usual})")
    parser.add_argument("--rounds", type=int, default=2, help="requests a row of the batch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to measure")
    parser.add_argument("--threads", type=int, help="that compute (default: as many as cores)")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="osora-serving-") as folder:
        benchmark = Benchmark(options, Path(folder))
        try:
            for name in options.parts:
                start = time.perf_counter()
                with benchmark.report.guard(case=name):
                    PARTS[name](benchmark)
                print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        finally:
            benchmark.judge()
            benchmark.report.write(options.json)


if __name__ == "__main__":
    main()
