"""What goes wrong with one request, or has gone wrong in other engines, hits nobody else.

The tests named after a failure elsewhere say which: vLLM, SGLang and LoRAX are inference servers for LoRA adapters.
"""

from dataclasses import replace

import pytest
import torch

from osora_core.errors import CorruptArtifact, UserError
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.inference.grammar import GrammarCompiler
from osora_core.runtime import Runtime
from tests.support.inference import Result, adapter, prompt, run, solo

GREEDY = SamplingParams(max_tokens=10)


def finish(engine: InferenceEngine, results: dict[str, Result]) -> None:
    while engine.busy:
        for output in engine.step():
            results[output.request_id].take(output)


def test_a_load_in_flight_never_serves_anothers_adapter(runtime: Runtime) -> None:
    """vLLM #47724: after a load at run time, requests in flight went on with another tenant's adapter."""
    engine = InferenceEngine(runtime, rows=2, adapters=2)
    live = Request("live", prompt(runtime, 1), SamplingParams(max_tokens=40), adapter(runtime, "live", 1))
    results = {"live": Result()}
    engine.add(live)
    for index in range(12):
        # Each is loaded into the one other slot, over the one before it.
        newcomer = Request(f"new-{index}", prompt(runtime, index), SamplingParams(max_tokens=2),
                           adapter(runtime, f"new-{index}", 10 + index))  # fmt: skip
        results[newcomer.id] = Result()
        engine.add(newcomer)
        for _ in range(2):
            for output in engine.step():
                results[output.request_id].take(output)
    finish(engine, results)
    assert results["live"] == solo(runtime, live)


def test_a_new_version_is_never_mistaken_for_the_old_one(runtime: Runtime) -> None:
    """Re-publishing while a request runs: it ends with what it began with, the next gets the new version."""
    engine = InferenceEngine(runtime, rows=3, adapters=3)
    old, new = adapter(runtime, "a@1", 1), adapter(runtime, "a@2", 2)
    wanted = [Request(f"r{i}", prompt(runtime, 1), GREEDY, row) for i, row in enumerate((old, new, old, new))]
    results = {request.id: Result() for request in wanted}
    for request in wanted:
        engine.add(request)
        for output in engine.step():
            results[output.request_id].take(output)
    finish(engine, results)
    assert results["r0"] == results["r2"] == solo(runtime, wanted[0])
    assert results["r1"] == results["r3"] == solo(runtime, wanted[1])
    assert results["r0"] != results["r1"]


def test_every_part_of_an_adapter_changes_the_output(runtime: Runtime) -> None:
    """Weights silently ignored: each of its vectors, by itself, must move the model's log-probabilities."""
    scored = SamplingParams(max_tokens=1, logprobs=True, prompt_logprobs=True)
    base = solo(runtime, Request("base", prompt(runtime, 1), scored)).scores
    for span in runtime.basis.spans:
        for part in (span.sigma, span.delta):
            row = torch.zeros(runtime.basis.row_length)
            row[part] = 0.5
            mine = AdapterRow(f"{span.name} {part}", row, runtime.basis.rank)
            scores = solo(runtime, Request("r", prompt(runtime, 1), scored, mine)).scores
            moved = max(abs((a.logprob or 0) - (b.logprob or 0)) for a, b in zip(base, scores, strict=True))
            assert moved > 1e-4, f"{span.name} {part} is ignored"


def test_more_adapters_than_slots_wait_for_no_slot(runtime: Runtime) -> None:
    """SGLang #13349: time to the first token fell off a cliff past the cache's size. Here a request that has a row
    always has a slot, and each cold adapter costs one copy of a row."""
    engine = InferenceEngine(runtime, rows=4, adapters=4)
    wanted = [Request(f"r{i}", prompt(runtime, 0), GREEDY, adapter(runtime, f"a{i}", i)) for i in range(12)]
    for request in wanted:
        engine.add(request)
    first_step: dict[str, int] = {}
    step = 0
    while engine.busy:
        for output in engine.step():
            first_step.setdefault(output.request_id, step)
        step += 1
    # Ten tokens each, four at a time: the first tokens of the next four come with the last ones of those before.
    assert [first_step[f"r{i}"] for i in range(12)] == sorted(first_step.values())
    assert max(first_step.values()) <= 2 * 10
    assert engine.slots.resident <= 4


def test_nothing_is_held_after_several_answers_to_one_prompt(runtime: Runtime) -> None:
    """SGLang #36894: after n > 1, unloading the adapter waited for ever for a reference that nobody held."""
    engine = InferenceEngine(runtime, rows=3, adapters=3)
    row = adapter(runtime, "a", 1)
    sampled = SamplingParams(max_tokens=6, temperature=1.0)
    several = [Request(f"n-{i}", prompt(runtime, 1), replace(sampled, seed=i), row) for i in range(3)]
    for request in several:
        engine.add(request)
    engine.step()
    engine.cancel("n-1")
    while engine.busy:
        engine.step()
    # All three slots can be had at once: the first adapter is evicted.
    others = [Request(f"o-{i}", prompt(runtime, i), GREEDY, adapter(runtime, f"o{i}", 5 + i)) for i in range(3)]
    assert {result.reason for result in run(engine, others).values()} <= {"stop", "length"}


def test_loading_while_generating_breaks_nothing(runtime: Runtime) -> None:
    """vLLM #13698: a load during generation crashed the server. One that cannot be loaded fails alone."""
    engine = InferenceEngine(runtime, rows=3, adapters=3)
    good = Request("good", prompt(runtime, 1), SamplingParams(max_tokens=30), adapter(runtime, "good", 1))
    misfit = Request("misfit", prompt(runtime, 1), GREEDY, AdapterRow("misfit", torch.zeros(3), 1))
    after = Request("after", prompt(runtime, 2), GREEDY, adapter(runtime, "after", 2))
    results = {request.id: Result() for request in (good, misfit, after)}
    for request in (good, misfit, after):
        engine.add(request)
        for output in engine.step():
            results[output.request_id].take(output)
    finish(engine, results)
    assert (results["misfit"].reason, type(results["misfit"].error)) == ("error", CorruptArtifact)
    assert results["good"] == solo(runtime, good)
    assert results["after"] == solo(runtime, after)
    # The slot that was meant for it is not lost.
    again = [Request(f"x{i}", prompt(runtime, i), GREEDY, adapter(runtime, f"x{i}", 7 + i)) for i in range(3)]
    assert {result.error for result in run(engine, again).values()} == {None}


def test_a_request_with_only_defaults_is_not_slowed_by_them(runtime: Runtime) -> None:
    """LoRAX #430: one null field cost ten seconds to the first token. Here the first step already gives one."""
    engine = InferenceEngine(runtime, rows=1)
    engine.add(Request("a", prompt(runtime, 0)))
    assert engine.step()[0].completion_tokens == 1


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_is_not_a_number_stays_in_its_row(runtime: Runtime, cancelled: bool) -> None:
    """Masked positions are multiplied by zero, and zero times NaN is NaN: a row must be clean for its next owner."""
    engine = InferenceEngine(runtime, rows=2, prefill_tokens=40)
    broken = Request("broken", (5,) * 100, GREEDY, replace(adapter(runtime, "x", 1), values=torch.full(
        (runtime.basis.row_length,), torch.nan)))  # fmt: skip
    neighbour = Request("neighbour", prompt(runtime, 3), SamplingParams(max_tokens=60))
    results = {"broken": Result(), "neighbour": Result(), "next": Result()}
    engine.add(neighbour)
    engine.add(broken)
    for _ in range(2 if cancelled else 6):
        for output in engine.step():
            results[output.request_id].take(output)
    if cancelled:
        engine.cancel("broken")
    else:
        assert isinstance(results["broken"].error, CorruptArtifact)
    following = Request("next", prompt(runtime, 0), GREEDY)
    engine.add(following)
    finish(engine, results)
    assert results["neighbour"] == solo(runtime, neighbour)
    assert results["next"] == solo(runtime, following)


def test_a_grammar_that_gives_up_fails_alone(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = GrammarCompiler(runtime.tokenizer, runtime.model.config.vocab_size, runtime.eos_ids)
    grammar = compiler.regex("[a-z]{30}")
    started = grammar.start()
    monkeypatch.setattr(grammar, "start", lambda: started)
    constrained = Request("constrained", prompt(runtime, 1), SamplingParams(max_tokens=40), grammar=grammar)
    free = Request("free", prompt(runtime, 1), GREEDY)
    engine = InferenceEngine(runtime, rows=2)
    results = {request.id: Result() for request in (constrained, free)}
    for request in (constrained, free):
        engine.add(request)
    for output in engine.step():
        results[output.request_id].take(output)
    with pytest.raises(UserError):
        started.accept(runtime.tokenizer.convert_tokens_to_ids("!"))
    finish(engine, results)
    assert isinstance(results["constrained"].error, UserError)
    assert results["constrained"].error.param == "regex"
    assert results["free"] == solo(runtime, free)
