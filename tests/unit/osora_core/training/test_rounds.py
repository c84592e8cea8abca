"""Turns: no tenant slows another down by the number of its jobs."""

from collections import Counter
from collections.abc import Sequence

import pytest

from osora_core.data import Example
from osora_core.training import JobSpec, TrainingJob
from osora_core.training.rounds import Rounds
from tests.unit.osora_core.conftest import Recorder

CHEAP = 128


def job(name: str, tenant: str, weight: float = 1.0, party: str = "") -> TrainingJob:
    data = [Example((1, 2), (True, True), 1)]
    return TrainingJob(name, JobSpec(), data, Recorder(), tenant=tenant, weight=weight, party=party)


def served(jobs: Sequence[TrainingJob], sizes: Sequence[int], rounds: int) -> tuple[Counter[str], list[int]]:
    """Tokens by tenant, and tokens of each round."""
    chooser, tokens, totals = Rounds(CHEAP), Counter[str](), []
    for _ in range(rounds):
        chosen = chooser.choose(jobs, sizes)
        tokens.update({tenant: 0 for tenant in ("many", "one")})
        for index in chosen:
            tokens[jobs[index].tenant] += sizes[index]
        totals.append(sum(sizes[index] for index in chosen))
    return tokens, totals


def test_a_tenant_with_many_jobs_leaves_another_half_of_the_engine() -> None:
    jobs = [*(job(f"many-{i}", "many") for i in range(50)), job("one", "one")]
    tokens, totals = served(jobs, [100] * 51, rounds=20)
    assert tokens["one"] == 20 * 100  # in every round
    assert max(totals) <= 2 * 100 + CHEAP  # which takes hardly longer than for two tenants with one job
    assert tokens["many"] >= 20 * 100


def test_the_many_jobs_take_turns() -> None:
    jobs = [*(job(f"many-{i}", "many") for i in range(6)), job("one", "one")]
    chooser, steps = Rounds(CHEAP), Counter[str]()
    for _ in range(12):
        steps.update(jobs[index].id for index in chooser.choose(jobs, [100] * 7))
    assert steps["one"] == 12
    assert {steps[f"many-{i}"] for i in range(6)} == {2}


def test_a_heavier_tenant_gets_more() -> None:
    jobs = [*(job(f"many-{i}", "many", weight=3.0) for i in range(50)), job("one", "one")]
    tokens, _ = served(jobs, [100] * 51, rounds=20)
    assert tokens["many"] == 3 * tokens["one"]


def test_large_steps_wait_for_their_turn() -> None:
    tokens, _ = served(
        [*(job(f"many-{i}", "many") for i in range(9)), job("one", "one")], [100] * 9 + [1000], rounds=30
    )
    assert tokens["one"] == pytest.approx(tokens["many"], rel=0.2)


def test_a_tenant_alone_and_rounds_that_cost_nothing_are_not_cut() -> None:
    alone = [job(f"many-{i}", "many") for i in range(50)]
    assert len(Rounds(CHEAP).choose(alone, [1000] * 50)) == 50
    mixed = [job("a", "many"), job("b", "many"), job("c", "one")]
    assert Rounds(CHEAP).choose(mixed, [20, 20, 20]) == [0, 1, 2]


def test_a_round_of_nobody_chooses_nobody() -> None:
    chooser = Rounds(CHEAP)
    assert chooser.choose([], []) == []
    assert chooser.choose([job("a", "one")], [10]) == [0]
    assert chooser.choose([], []) == []


def test_jobs_of_a_party_step_together() -> None:
    jobs = [*(job(f"sweep/{i}", "many", party="sweep") for i in range(3)), job("b", "many"), job("one", "one")]
    chooser = Rounds(CHEAP)
    for _ in range(6):
        members = [index for index in chooser.choose(jobs, [100] * 5) if index < 3]
        assert members in ([], [0, 1, 2])
