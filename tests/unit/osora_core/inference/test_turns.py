"""Who has a turn in a step: others do not wait for a mask that takes long, nor for every row of a tenant with many."""

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from osora_core.inference import InferenceEngine, Request, SamplingParams
from osora_core.inference.live import LiveSequence
from osora_core.inference.turns import StepTurns
from osora_core.runtime import Runtime
from tests.support.inference import prompt, run, solo


@dataclass
class Mask:
    is_late: bool = False


def row(tenant: str, mask: Mask | None = None) -> LiveSequence:
    request = cast(Any, SimpleNamespace(tenant=tenant))
    return LiveSequence(request, cast(Any, None), cast(Any, mask or Mask()), 0.0)


def test_a_tenant_with_many_rows_has_a_few_at_a_time_and_each_in_its_turn() -> None:
    turns, flood, other = StepTurns(shares=True), [row("flood") for _ in range(20)], row("other")
    steps: list[set[LiveSequence]] = []
    for _ in range(10):
        out = turns.left_out([*flood, other], others=False)
        assert other not in out
        steps.append(set(flood) - out)
    assert {len(step) for step in steps} == {8}
    for three in zip(steps, steps[1:], steps[2:], strict=False):
        assert set.union(*three) == set(flood)


def test_a_tenant_that_is_alone_has_all_its_rows() -> None:
    assert StepTurns(shares=True).left_out([row("alone") for _ in range(20)], others=False) == set()


def test_where_a_row_that_sits_out_costs_as_much_every_row_has_every_turn() -> None:
    rows = [*(row("flood") for _ in range(20)), row("other")]
    assert StepTurns(shares=False).left_out(rows, others=False) == set()


def test_a_row_waits_for_none_of_its_tenant_that_came_later() -> None:
    """Answers of two tokens, one after the other, beside a long one."""
    turns, long, other = StepTurns(shares=True), row("flood"), row("other")
    short = [row("flood") for _ in range(15)]
    had: Counter[LiveSequence] = Counter()
    for _ in range(200):
        rows = [*short, long, other]
        had.update(set(rows) - turns.left_out(rows, others=False))
        short = [row("flood") if had[one] >= 2 else one for one in short]
    assert had[other] == 200
    assert had[long] >= 60  # of 16 rows eight have a turn


def test_a_row_whose_mask_is_late_joins_a_later_step() -> None:
    mask = Mask(is_late=True)
    turns, late, other = StepTurns(shares=True), row("a", mask), row("b")
    assert turns.left_out([late, other], others=False) == {late}
    assert turns.left_out([late], others=True) == {late}  # a prompt is read meanwhile
    assert turns.left_out([late], others=False) == set()  # nobody else is there to be computed
    mask.is_late = False
    assert turns.left_out([late, other], others=False) == set()


@pytest.mark.usefixtures("one_thread")
def test_rows_that_sit_steps_out_say_the_same(runtime: Runtime) -> None:
    def request(tenant: str, number: int) -> Request:
        params = SamplingParams(max_tokens=6, temperature=1.0, seed=number)
        return Request(f"{tenant}-{number}", prompt(runtime, number % 3), params, tenant=tenant)

    requests = [*(request("flood", number) for number in range(11)), request("other", 99)]
    engine = InferenceEngine(runtime, rows=12, adapters=1)
    results = run(engine, requests)
    for own in requests:
        assert results[own.id] == solo(runtime, own)
