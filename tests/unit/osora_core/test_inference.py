"""The inference engine: what a request gets does not depend on what runs beside it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from osora_core.data import Renderer
from osora_core.errors import UserError
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime


def adapter(runtime: Runtime, name: str, seed: int) -> AdapterRow:
    values = torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(seed)) * 0.2
    return AdapterRow(name, values, rank=16)


def run(engine: InferenceEngine, requests: Sequence[Request]) -> dict[str, tuple[str, str]]:
    """Text and finish reason by request."""
    for request in requests:
        engine.add(request)
    texts = dict.fromkeys((request.id for request in requests), "")
    reasons = {}
    while engine.busy:
        for output in engine.step():
            texts[output.request_id] += output.text
            if output.finish_reason is not None:
                reasons[output.request_id] = output.finish_reason
    return {name: (text, reasons[name]) for name, text in texts.items()}


def prompt(runtime: Runtime, index: int) -> tuple[int, ...]:
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    return tuple(renderer.prompt([{"role": "user", "content": f"help {index} " * (1 + index % 4)}]))


def requests(runtime: Runtime, count: int, adapters: int) -> list[Request]:
    rows = [None, *(adapter(runtime, f"adapter-{n}", n) for n in range(adapters))]
    return [
        Request(f"r{i}", prompt(runtime, i), SamplingParams(max_tokens=3 + i % 9), rows[i % len(rows)])
        for i in range(count)
    ]


@pytest.mark.parametrize("prefill_tokens", [7, 2048])
def test_mixed_equals_solo(runtime: Runtime, prefill_tokens: int) -> None:
    """More requests than rows and more adapters than slots: they join, leave and are evicted all the time."""
    engine = InferenceEngine(runtime, rows=3, adapters=3, prefill_tokens=prefill_tokens)
    wanted = requests(runtime, 24, adapters=6)
    mixed = run(engine, wanted)
    solo: dict[str, tuple[str, str]] = {}
    for request in wanted:
        solo |= run(InferenceEngine(runtime, rows=1, adapters=1), [request])
    assert mixed == solo
    assert len({text for text, _ in mixed.values()}) > 4


def test_the_bare_base_is_what_transformers_generates(runtime: Runtime, base_path: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    tokens = prompt(runtime, 3)
    expected = reference.generate(
        torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens)), max_new_tokens=12, do_sample=False
    )[0, len(tokens) :]
    text = runtime.tokenizer.decode(expected, skip_special_tokens=True)
    result = run(InferenceEngine(runtime, rows=2), [Request("a", tokens, SamplingParams(max_tokens=12))])
    assert result["a"][0] == text


def test_a_seed_gives_the_same_text_in_any_company(runtime: Runtime) -> None:
    params = SamplingParams(max_tokens=10, temperature=1.0, top_k=20, top_p=0.9, seed=7)
    alone = run(InferenceEngine(runtime, rows=1), [Request("a", prompt(runtime, 1), params)])
    company = [Request("a", prompt(runtime, 1), params), *requests(runtime, 6, adapters=2)]
    assert run(InferenceEngine(runtime, rows=4), company)["a"] == alone["a"]


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(runtime: Runtime) -> None:
    free = run(InferenceEngine(runtime, rows=1), [Request("a", prompt(runtime, 2), SamplingParams(max_tokens=20))])
    text = free["a"][0]
    stop = text[5:9]
    params = SamplingParams(max_tokens=20, stop=(stop,))
    stopped = run(InferenceEngine(runtime, rows=1), [Request("a", prompt(runtime, 2), params)])
    assert stopped["a"] == (text[: text.index(stop)], "stop")


def test_a_cancelled_request_frees_its_row(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1)
    first, second = requests(runtime, 2, adapters=1)
    engine.add(Request("endless", prompt(runtime, 0), SamplingParams(max_tokens=100)))
    engine.step()
    engine.cancel("endless")
    assert not engine.busy
    assert run(engine, [first, second]).keys() == {"r0", "r1"}


def test_what_cannot_run_is_refused(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1)
    with pytest.raises(UserError, match="at most 127"):
        engine.add(Request("long", (5,) * 128))
    with pytest.raises(UserError, match="empty"):
        engine.add(Request("empty", ()))
    with pytest.raises(UserError, match="temperature"):
        SamplingParams(temperature=-1)


def test_generation_ends_at_the_base_s_length(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1, max_length=len(prompt(runtime, 0)) + 2)
    engine.add(Request("a", prompt(runtime, 0), SamplingParams(max_tokens=50)))
    outputs = []
    while engine.busy:
        outputs += engine.step()
    assert outputs[-1].finish_reason == "length"
    assert outputs[-1].completion_tokens == 2
