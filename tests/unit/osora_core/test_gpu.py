"""The engines on a GPU beside the CPU, which is the reference. Runs where there is one."""

from dataclasses import replace

import pytest
import torch

from osora_core import canary
from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from osora_core.training import JobSpec
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
    for index, adapter in enumerate(adapters):
        assert adapter is not None
        row = AdapterRow(str(index), adapter.to_row(gpu.basis), adapter.rank)
        requests.append(Request(str(index), prompt, SamplingParams(max_tokens=8), row))
    alone = {}
    for request in requests:
        alone |= answers(gpu, request)
    assert answers(gpu, *requests) == alone
    assert len(set(alone.values())) > 1


def test_the_canary_holds_on_a_gpu(runtimes: tuple[Runtime, Runtime]) -> None:
    _, gpu = runtimes
    adapter = train(gpu, rows(gpu), SPECS[0])[0].adapter
    assert adapter is not None
    canary.check(gpu, replace(adapter, canary=canary.compute(gpu, adapter)))
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
