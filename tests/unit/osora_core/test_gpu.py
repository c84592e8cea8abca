"""The engines on a GPU beside the CPU, which is the reference. Runs where there is one."""

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from osora_core import base_models, canary
from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from osora_core.training import JobSpec
from osora_core.weights import fingerprint_base
from tests.support.inference import adapter, agree, run, solo
from tests.support.loras import lora_row, make_lora
from tests.unit.osora_core.conftest import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

SPECS = [JobSpec(seed=1, epochs=2, batch_size=4, rank=64), JobSpec(seed=2, epochs=2, batch_size=8, rank=16, train="o")]
QUESTION = [{"role": "user", "content": "help 3 please"}]


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, Runtime]:
    cache = BasisCache(tmp_path_factory.mktemp("cache"))
    cpu, gpu = (Runtime.load("osora-tiny", cache, device=device, rank=64) for device in ("cpu", "cuda"))
    return cpu, gpu


def rows(runtime: Runtime) -> list[Example]:
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    return [
        renderer.render(
            {
                "messages": [
                    {"role": "user", "content": f"help {i} " + "please " * (i % 5)},
                    {"role": "assistant", "content": f"order {i % 3}"},
                ]
            },
            i + 1,
        )
        for i in range(24)
    ]


def test_an_adapter_of_a_gpu_fits_a_cpu(runtimes: tuple[Runtime, Runtime]) -> None:
    cpu, gpu = (runtime.basis for runtime in runtimes)
    assert (gpu.base_fingerprint, gpu.stored) == (cpu.base_fingerprint, cpu.stored)
    assert (cpu.dtype, gpu.dtype) == (torch.float32, torch.bfloat16)
    assert gpu.factors["model.layers.0.self_attn.q_proj"].U.is_cuda


def test_jobs_learn_on_a_gpu_what_they_learn_on_a_cpu(runtimes: tuple[Runtime, Runtime]) -> None:
    """The GPU computes in bfloat16. Small differences grow with the steps, so it is the first ones that must agree."""
    on_cpu, on_gpu = (train(runtime, rows(runtime), *SPECS) for runtime in runtimes)
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        assert gpu.losses[:6] == pytest.approx(cpu.losses[:6], rel=0.15, abs=0.1)
        assert gpu.losses[-1] < gpu.losses[0] / 2


def test_mixed_batches_on_a_gpu_answer_as_alone(runtimes: tuple[Runtime, Runtime]) -> None:
    _, gpu = runtimes
    adapters = [recorder.adapter for recorder in train(gpu, rows(gpu), *SPECS)]
    prompt = tuple(Renderer(gpu.tokenizer, gpu.max_length).prompt(QUESTION))
    requests = [Request("bare", prompt, SamplingParams(max_tokens=8))]
    for index, trained in enumerate(adapters):
        assert trained is not None
        row = AdapterRow(str(index), trained.to_row(gpu.basis), trained.rank)
        requests.append(Request(str(index), prompt, SamplingParams(max_tokens=8), row))
    alone = {}
    for request in requests:
        alone |= answers(gpu, request)
    assert answers(gpu, *requests) == alone
    assert len(set(alone.values())) > 1


def requests(runtime: Runtime, count: int) -> list[Request]:
    """With and without adapters, short and longer than what is captured of prompts."""
    params = SamplingParams(max_tokens=12, logprobs=True)
    rows = [None, *(adapter(runtime, f"a{seed}", seed) for seed in range(9))]
    return [
        Request(
            f"r{i}", tuple(10 + (7 * i + j) % 3000 for j in range((5, 40, 300, 700)[i % 4] + i)), params, rows[i % 10]
        )
        for i in range(count)
    ]


def test_captured_steps_stay_right_over_joins_leaves_loads_and_evictions(runtimes: tuple[Runtime, Runtime]) -> None:
    """More requests than rows, more adapters than slots: what was captured first reads what was loaded last."""
    _, gpu = runtimes
    wanted = requests(gpu, 30)
    engine = InferenceEngine(gpu, rows=5, adapters=5, prefill_tokens=900)
    engine.warm_up()
    mixed = run(engine, wanted)
    for request in wanted:
        agree(mixed[request.id], solo(gpu, request), noise=0.3)
    assert len({result.text for result in mixed.values()}) > 10


def test_a_new_version_in_the_same_slot_is_what_the_next_request_gets(runtimes: tuple[Runtime, Runtime]) -> None:
    _, gpu = runtimes
    engine = InferenceEngine(gpu, rows=1, adapters=1)
    params = SamplingParams(max_tokens=6, logprobs=True)
    for version in range(3):
        request = Request("r", (11, 12, 13), params, adapter(gpu, f"a@{version}", version))
        agree(run(engine, [request])["r"], solo(gpu, request), noise=0.3)


def test_a_gpu_says_what_a_cpu_says(runtimes: tuple[Runtime, Runtime]) -> None:
    cpu, gpu = runtimes
    for request in requests(cpu, 8):
        agree(solo(gpu, request), solo(cpu, request), noise=0.5)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_plain_loras_answer_on_a_gpu_as_alone_and_as_on_a_cpu(
    runtimes: tuple[Runtime, Runtime], tmp_path: Path
) -> None:
    """Beside adapters of the basis and the base, more than ranks: what is captured reads what came last."""
    cpu, gpu = runtimes
    base = base_models.resolve("osora-tiny")
    targets = (["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    folders = [
        make_lora(base, tmp_path / f"{n}", seed=n, size=0.1, r=4 + n, target_modules=targets[n % 2]) for n in range(4)
    ]

    def wanted(runtime: Runtime) -> list[Request]:
        rows = [lora_row(runtime, folder) for folder in folders]
        return [
            replace(request, adapter=rows[index % 4]) if index % 3 else request
            for index, request in enumerate(requests(runtime, 18))
        ]

    engine = InferenceEngine(gpu, rows=5, adapters=5, prefill_tokens=900, lora_ranks=16)
    engine.warm_up()
    on_gpu = wanted(gpu)
    mixed = run(engine, on_gpu)
    for request in on_gpu:
        agree(mixed[request.id], solo(gpu, request), noise=0.3)
    for request, there in zip(wanted(cpu)[:8], on_gpu, strict=False):
        agree(mixed[there.id], solo(cpu, request), noise=0.5)
    assert len({result.text for result in mixed.values()}) > 8


def test_the_bare_base_is_untouched_by_being_laid_out(runtimes: tuple[Runtime, Runtime]) -> None:
    """The weights are views of larger ones: every bit is where it was, and no weight is in memory twice."""
    _, gpu = runtimes
    before = fingerprint_base(gpu.model)
    allocated = torch.cuda.memory_allocated()
    engine = InferenceEngine(gpu, rows=1, adapters=1, max_length=16)
    spent = torch.cuda.memory_allocated() - allocated
    assert fingerprint_base(gpu.model) == before == fingerprint_base(runtimes[0].model)
    assert spent < gpu.bytes / 2
    assert engine.max_length == 16


def test_the_canary_holds_on_a_gpu(runtimes: tuple[Runtime, Runtime]) -> None:
    _, gpu = runtimes
    adapter = train(gpu, rows(gpu), SPECS[0])[0].adapter
    assert adapter is not None
    sung = replace(adapter, canary=canary.compute(gpu, adapter))
    canary.check(gpu, sung)
    published, answer = canary.read(gpu, sung), Future[torch.Tensor]()
    assert published is not None
    engine = InferenceEngine(gpu, rows=2, adapters=2)
    row = AdapterRow("a", adapter.to_row(gpu.basis).to(gpu.basis.dtype), adapter.rank)
    engine.examine(row, published.tokens, published.ids, answer)
    while engine.busy:
        engine.step()
    published.judge(answer.result(0))
    other = replace(adapter, delta={name: delta + 0.5 for name, delta in adapter.delta.items()})
    with pytest.raises(canary.CanaryMismatch):
        canary.check(gpu, replace(other, canary=canary.compute(gpu, adapter)))


def answers(runtime: Runtime, *requests: Request) -> dict[str, str]:
    engine = InferenceEngine(runtime, rows=4)
    for request in requests:
        engine.add(request)
    texts = {request.id: "" for request in requests}
    while engine.busy:
        for output in engine.step():
            texts[output.request_id] += output.text
    return texts
