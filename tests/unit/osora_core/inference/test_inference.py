"""The inference engine: what a request gets is its own, whoever else is in the batch."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from osora_core.errors import UserError
from osora_core.inference import InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from tests.support.inference import Result, adapter, prompt, run, solo


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
    assert mixed == {request.id: solo(runtime, request) for request in wanted}
    assert len({result.text for result in mixed.values()}) > 4


def test_the_bare_base_is_what_transformers_generates(runtime: Runtime, base_path: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    tokens = prompt(runtime, 3)
    expected = reference.generate(
        torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens)), max_new_tokens=12, do_sample=False
    )[0, len(tokens) :]
    text = runtime.tokenizer.decode(expected, skip_special_tokens=True)
    result = run(InferenceEngine(runtime, rows=2), [Request("a", tokens, SamplingParams(max_tokens=12))])
    assert result["a"].text == text


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=10, temperature=1.0, seed=7),
        SamplingParams(max_tokens=10, temperature=1.0, top_k=20, top_p=0.9, min_p=0.01, seed=7),
        SamplingParams(max_tokens=10, temperature=0.8, repetition_penalty=1.2, frequency_penalty=0.4, seed=7),
    ],
)
def test_a_seed_gives_the_same_text_in_any_company(runtime: Runtime, params: SamplingParams) -> None:
    request = Request("a", prompt(runtime, 1), params, adapter(runtime, "mine", 3))
    alone = solo(runtime, request)
    others = [
        Request(f"s{i}", prompt(runtime, i), SamplingParams(max_tokens=12, temperature=1.5, top_k=i, seed=i))
        for i in range(3)
    ]
    company = [*others, request, *requests(runtime, 6, adapters=2)]
    assert run(InferenceEngine(runtime, rows=5), company)["a"] == alone
    assert solo(runtime, Request("a", request.prompt, params, request.adapter)) == alone


def test_without_a_seed_texts_differ(runtime: Runtime) -> None:
    params = SamplingParams(max_tokens=20, temperature=2.0)
    wanted = [Request(f"r{i}", prompt(runtime, 0), params) for i in range(3)]
    assert len({result.text for result in run(InferenceEngine(runtime, rows=3), wanted).values()}) > 1


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(runtime: Runtime) -> None:
    text = solo(runtime, Request("a", prompt(runtime, 2), SamplingParams(max_tokens=20))).text
    stop = text[5:9]
    stopped = solo(runtime, Request("a", prompt(runtime, 2), SamplingParams(max_tokens=20, stop=(stop,))))
    assert (stopped.text, stopped.reason) == (text[: text.index(stop)], "stop")


def test_a_stop_token_ends_the_text_and_is_not_part_of_it(runtime: Runtime) -> None:
    free = Request("a", prompt(runtime, 2), SamplingParams(max_tokens=20, logprobs=True))
    scores = solo(runtime, free).scores
    stop = scores[6].token
    at = next(i for i, score in enumerate(scores) if score.token == stop)
    params = SamplingParams(max_tokens=20, logprobs=True, stop_tokens=frozenset({stop}))
    stopped = solo(runtime, Request("a", prompt(runtime, 2), params))
    assert stopped.reason == "stop"
    assert [score.token for score in stopped.scores] == [score.token for score in scores[:at]]
    assert stopped.text == runtime.tokenizer.decode([s.token for s in scores[:at]], skip_special_tokens=True)


@pytest.mark.parametrize("prefill_tokens", [5, 2048])
def test_log_probabilities_are_those_of_the_whole_text(runtime: Runtime, base_path: Path, prefill_tokens: int) -> None:
    """Prompt and answer, scored while generating in mixed company: as in one forward of transformers over all."""
    tokens = prompt(runtime, 1)
    drawn: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0, "seed": 1, "repetition_penalty": 1.5}
    params = SamplingParams(**drawn, logprobs=True, top_logprobs=2, prompt_logprobs=True)
    engine = InferenceEngine(runtime, rows=4, prefill_tokens=prefill_tokens)
    scores = run(engine, [*requests(runtime, 5, adapters=2), Request("a", tokens, params)])["a"].scores
    whole = [score.token for score in scores]
    assert tuple(whole[: len(tokens)]) == tokens
    assert len(whole) == len(tokens) + 8
    assert scores[0].logprob is None
    reference = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    with torch.inference_mode():
        expected = reference(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
    for place, score in enumerate(scores[1:]):
        assert score.logprob == pytest.approx(expected[place, score.token].item(), abs=1e-4)
        best = expected[place].topk(2)
        assert [logprob for _, logprob in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_those_that_decode_wait_for_a_few_tokens_of_a_long_prompt_at_a_time(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osora_core.inference.engine._CPU_PREFILL_TOKENS", 4)
    engine = InferenceEngine(runtime, rows=2)
    read: list[int] = []
    decode_and_read = engine._execution.decode_and_read

    def noted(tokens: Any, positions: Any, chunks: Any, cached: Any) -> Any:
        read.extend(map(len, chunks))
        return decode_and_read(tokens, positions, chunks, cached)

    monkeypatch.setattr(engine._execution, "decode_and_read", noted)
    engine.add(Request("first", (5,) * 9, SamplingParams(max_tokens=20)))
    engine.step()
    engine.add(Request("second", (5,) * 10, SamplingParams(max_tokens=1)))
    while engine.busy:
        engine.step()
    assert read == [9, 4, 4, 2]


def test_queueing_is_timed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock on which each step takes a second: the second request waits for the first one's three tokens."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("osora_core.inference.engine.time", SimpleNamespace(perf_counter=lambda: clock.now))
    engine = InferenceEngine(runtime, rows=1)
    for request in [Request(name, prompt(runtime, 0), SamplingParams(max_tokens=3)) for name in "ab"]:
        engine.add(request)
    waited: dict[str, float] = {}
    while engine.busy:
        clock.now += 1.0
        waited |= {output.request_id: output.queued_seconds for output in engine.step()}
    assert waited == {"a": 1.0, "b": 4.0}


def test_a_cancelled_request_frees_its_row(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1)
    first, second = requests(runtime, 2, adapters=1)
    engine.add(Request("endless", prompt(runtime, 0), SamplingParams(max_tokens=100)))
    engine.step()
    engine.add(Request("waiting", prompt(runtime, 0)))
    engine.cancel("endless")
    engine.cancel("waiting")
    assert not engine.busy
    assert run(engine, [first, second]).keys() == {"r0", "r1"}


def test_nothing_of_a_request_stays_in_the_pool(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=3, adapters=3)
    run(engine, requests(runtime, 9, adapters=3))
    engine.add(Request("cancelled", prompt(runtime, 0), SamplingParams(max_tokens=100)))
    engine.step()
    engine.cancel("cancelled")
    # The last position takes what padding writes, and is never read.
    assert not engine.pool.keys[..., : engine.max_length, :].any()
    assert not engine.pool.values[..., : engine.max_length, :].any()


def test_what_cannot_run_is_refused(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1)
    with pytest.raises(UserError, match="at most 127"):
        engine.add(Request("long", (5,) * 128))
    with pytest.raises(UserError, match="empty"):
        engine.add(Request("empty", ()))
    for name, params in (
        ("logit_bias", SamplingParams(logit_bias={10**6: 1.0})),
        ("stop_tokens", SamplingParams(stop_tokens=frozenset({10**6}))),
    ):
        with pytest.raises(UserError, match="token 1000000; this base has tokens 0 to") as refused:
            engine.add(Request("r", (5,), params))
        assert refused.value.param == name
    assert not engine.busy


def test_generation_ends_at_the_base_s_length(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1, max_length=len(prompt(runtime, 0)) + 2)
    result: Result = run(engine, [Request("a", prompt(runtime, 0), SamplingParams(max_tokens=50))])["a"]
    assert (result.reason, result.tokens) == ("length", 2)
