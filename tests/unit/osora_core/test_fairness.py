"""Tenants share the engine by tokens served, whatever each of them asks for."""

from osora_core.fairness import FairQueue
from osora_core.inference import InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from tests.support.inference import prompt


def request(name: str, tenant: str, prompt_tokens: int = 4, max_tokens: int = 4) -> Request:
    return Request(name, (5,) * prompt_tokens, SamplingParams(max_tokens=max_tokens), tenant=tenant)


def order(queue: FairQueue[Request]) -> list[str]:
    return [queue.pop().id for _ in range(len(queue))]


def test_within_a_tenant_first_come_first_served() -> None:
    queue = FairQueue[Request](lambda request: len(request.prompt))
    for name in "abc":
        queue.push(request(name, "one"))
    assert order(queue) == ["a", "b", "c"]


def test_tenants_take_turns_by_tokens_and_not_by_requests() -> None:
    queue = FairQueue[Request](lambda request: len(request.prompt))
    for index in range(4):
        queue.push(request(f"long-{index}", "long", prompt_tokens=30))
    for index in range(6):
        queue.push(request(f"short-{index}", "short", prompt_tokens=10))
    # Three short prompts are as much as one long one.
    assert [name.partition("-")[0] for name in order(queue)] == [
        "long", "short", "short", "short", "long", "short", "short", "short", "long", "long",
    ]  # fmt: skip


def test_who_returns_has_saved_up_nothing() -> None:
    queue = FairQueue[Request](lambda request: len(request.prompt))
    queue.push(request("early", "sleeper"))
    queue.pop()
    for index in range(20):
        queue.push(request(f"busy-{index}", "busy"))
    for _ in range(10):
        queue.pop()
    for index in range(10):
        queue.push(request(f"sleeper-{index}", "sleeper"))
    # From now on they alternate; the sleeper does not get ten in a row for having been away.
    assert sum(name.startswith("sleeper") for name in order(queue)[:6]) == 3


def test_what_was_removed_is_not_served() -> None:
    queue = FairQueue[Request](lambda request: len(request.prompt))
    for name in "abc":
        queue.push(request(name, name))
    queue.remove("b")
    queue.remove("nothing")
    assert len(queue) == 2
    assert order(queue) == ["a", "c"]


def test_a_flood_of_one_tenant_does_not_starve_another(runtime: Runtime) -> None:
    """A hundred requests of one tenant wait; the one of another, which comes last, is among the first served."""
    engine = InferenceEngine(runtime, rows=2)
    params = SamplingParams(max_tokens=4)
    for index in range(100):
        engine.add(Request(f"flood-{index}", prompt(runtime, index), params, tenant="flood"))
    for _ in range(3):
        engine.step()
    engine.add(Request("alone", prompt(runtime, 0), params, tenant="alone"))
    finished: list[str] = []
    while "alone" not in finished:
        finished += [output.request_id for output in engine.step() if output.finish_reason]
    assert len(finished) <= 2 * engine.rows + 1


def test_a_tenant_that_generates_much_waits_for_one_that_generates_little(runtime: Runtime) -> None:
    """Tokens count as they are generated, so prompts of one length do not mean equal shares."""
    engine = InferenceEngine(runtime, rows=1)
    for index in range(6):
        engine.add(Request(f"much-{index}", prompt(runtime, 0), SamplingParams(max_tokens=60), tenant="much"))
        engine.add(Request(f"little-{index}", prompt(runtime, 0), SamplingParams(max_tokens=2), tenant="little"))
    finished: list[str] = []
    while len(finished) < 6:
        finished += [output.request_id for output in engine.step() if output.finish_reason]
    assert sum(name.startswith("much") for name in finished) <= 2
