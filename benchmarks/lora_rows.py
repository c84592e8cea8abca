"""Plain LoRAs in a batch: alone, of many, beside adapters of the basis and the bare base, in one engine.

    python -m benchmarks.lora_rows [--json PATH]
    python -m benchmarks.lora_rows --device cuda [--layers 8] [--json PATH]

On a CPU the base is osora-tiny, on a GPU a random one with Llama-8B's shapes. Each LoRA adapts every linear. Decode
steps alone are measured, in turns with those of the bare base; ratios are medians over repeats. The answers of a mixed
batch are compared with those that the same requests get alone.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks import report
from benchmarks.serving_workload import Question, decode_rate, load_runtime, make_values, random_runtime, serve
from osora_core.inference import AdapterRow, InferenceEngine, LoraRow, Request
from osora_core.inference.lora_bank import bank_bytes
from osora_core.runtime import Runtime

COLUMNS = {
    "case": "34", "rows": "4d", "loras": "5d", "ranks": "5d", "tokens_per_second": "17.1f", "of_bare": "7.3f",
    "mebibytes": "9.1f",
}  # fmt: skip
STEPS = 32
PROMPT = tuple(range(10, 34))
CHECKED = 24
# Two engines in turns agree so well on a quiet machine.
FREE = 0.97


def make_lora(runtime: Runtime, content: int, rank: int) -> LoraRow:
    """Random A and B for every linear, small enough for sound answers and large enough to change them."""
    generator = torch.Generator().manual_seed(content)

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) / shape[1] ** 0.5).to(runtime.basis.dtype)

    factors = {
        index: (drawn(rank, one.Vt.shape[1]), 0.3 * drawn(one.U.shape[0], rank))
        for index, one in enumerate(runtime.basis.factors.values())
    }
    return LoraRow(f"lora-{content}-r{rank}", factors, rank)


class Benchmark:
    """The base, what to measure it with, and what came out."""

    def __init__(self, options: argparse.Namespace, runtime: Runtime) -> None:
        self.options, self.runtime = options, runtime
        self.report = report.Report(options.device, COLUMNS)

    def engine(self) -> InferenceEngine:
        engine = InferenceEngine(
            self.runtime, rows=self.options.rows, adapters=self.options.rows, lora_ranks=self.options.lora_ranks,
            max_length=128,
        )  # fmt: skip
        engine.warm_up()
        return engine

    def run(self) -> None:
        options = self.options
        rank, rows = options.rank, options.rows
        most = min(rows, options.lora_ranks // rank)
        loras = [make_lora(self.runtime, content, rank) for content in range(most)]
        of_basis = [
            AdapterRow(f"osora-{n}", make_values(self.runtime, n, self.runtime.basis.rank), self.runtime.basis.rank)
            for n in range(rows)
        ]
        mixed = [(loras[row // 3 % most], of_basis[row], None)[row % 3] for row in range(rows)]
        never, engine = self.engine(), self.engine()
        self.compare(engine, "adapters of the basis", list(of_basis))
        for count in sorted({1, max(1, most // 4), most}):
            self.compare(engine, f"LoRAs of rank {rank}", [loras[row % count] for row in range(rows)])
        self.compare(engine, "one row with a LoRA, others bare", [loras[0], *[None] * (rows - 1)])
        self.compare(engine, "LoRAs, adapters, bare base", mixed)
        self.free(never, engine)
        self.check(engine, [loras[0], loras[-1], of_basis[0], None])

    def requests(self, adapters: Sequence[AdapterRow | LoraRow | None]) -> list[Request]:
        return [Request(f"{row}", PROMPT, adapter=adapter) for row, adapter in enumerate(adapters)]

    def compare(self, engine: InferenceEngine, case: str, adapters: Sequence[AdapterRow | LoraRow | None]) -> None:
        """Decode steps with these adapters beside those of the bare base."""
        bare, own = self.requests([None] * len(adapters)), self.requests(adapters)
        decode_rate(engine, own, 2), decode_rate(engine, bare, 2)  # compiled and captured before
        pairs = [
            (decode_rate(engine, bare, STEPS), decode_rate(engine, own, STEPS)) for _ in range(self.options.repeats)
        ]
        found = {adapter.key: adapter.rank for adapter in adapters if isinstance(adapter, LoraRow)}
        self.report.add(
            case=case, rows=len(adapters), loras=len(found), ranks=sum(found.values()),
            tokens_per_second=median(own for _, own in pairs), of_bare=median(own / bare for bare, own in pairs),
        )  # fmt: skip

    def free(self, never: InferenceEngine, engine: InferenceEngine) -> None:
        """What rows without a LoRA pay for those that lie in the bank: the bare base in an engine that never had one,
        and in this."""
        bare = self.requests([None] * self.options.rows)
        decode_rate(never, bare, 2)
        pairs = [
            (decode_rate(never, bare, STEPS), decode_rate(engine, bare, STEPS)) for _ in range(2 * self.options.repeats)
        ]
        ratio = median(after / before for before, after in pairs)
        self.report.target("bare base beside idle LoRAs", ratio, "of its speed", f">= {FREE}", ratio >= FREE)
        mebibytes = bank_bytes(self.runtime.basis, self.options.lora_ranks) / 2**20
        self.report.add(case="the bank for LoRAs, full", ranks=self.options.lora_ranks, mebibytes=mebibytes)

    def check(self, engine: InferenceEngine, adapters: Sequence[AdapterRow | LoraRow | None]) -> None:
        """Answers of a mixed batch that are not those that the same requests get alone: none, in float32."""
        asked = [
            Question.of(self.runtime, number).request(f"{number}", adapters[number % len(adapters)])
            for number in range(CHECKED)
        ]
        together = serve(engine, asked, self.options.rows).answers
        wrong = sum(serve(engine, [request], 1).answers[request.id] != together[request.id] for request in asked)
        if self.runtime.model.dtype == torch.float32:
            self.report.target("answers that company changes", wrong, f"of {CHECKED}", "0", wrong == 0)
        else:
            print(f"{wrong} of {CHECKED} answers differ from those alone, as far as bfloat16 rounds otherwise")


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--rows", type=int, default=32, help="requests at once (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=16, help="of each LoRA (default: %(default)s)")
    parser.add_argument("--lora-ranks", type=int, default=256, help="of all LoRAs at once (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=32, help="of the random base on a GPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--base", default="osora-tiny", help="on a CPU (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: one for each core)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.device == "cuda":
            runtime = random_runtime(options.layers, 128)
        else:
            runtime = load_runtime(options.base, "cpu", Path(folder), options.threads)
        benchmark = Benchmark(options, runtime)
        try:
            benchmark.run()
        finally:
            benchmark.report.write(options.json)


if __name__ == "__main__":
    main()
