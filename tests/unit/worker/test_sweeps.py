"""Who sweeps: those who ask for it, and of those who leave the rate to us the ones for whom it is cheap."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from osora_common.hyperparameters import sweep_specs
from osora_common.presets import Room, points
from osora_common.ranks import Ranks
from osora_core.data import Example, Preference, Row
from osora_core.errors import OutOfSlots
from osora_core.training import JobSpec, TrainingJob
from osora_core.training.errors import JobTooShort
from tests.unit.worker.test_hyperparameters import AUTO
from worker.hyperparameters import plan_of
from worker.remarks import announcement
from worker.reports import Reports
from worker.sweeps import Decision, Rows, decide

DEFAULT = JobSpec(rank=8)


def rates(specs: Sequence[JobSpec]) -> list[tuple[float, float]]:
    return [(spec.learning_rate, spec.sigma_rate) for spec in specs]


@pytest.mark.parametrize(
    ("osora", "expected"),
    [
        ({"learning_rate": "sweep"}, [(0.03, 2), (0.09, 2), (0.01, 2), (0.03, 0.5), (0.09, 0.5), (0.01, 0.5)]),
        ({"learning_rate": "sweep", "sigma_rate": 4}, [(0.03, 4), (0.09, 4), (0.01, 4)]),
        ({"learning_rate": [0.1, 0.2]}, [(0.1, 2), (0.2, 2)]),
        ({"learning_rate": [0.1, 0.2], "sigma_rate": [1, 3]}, [(0.1, 1), (0.2, 1), (0.1, 3), (0.2, 3)]),
        ({"sigma_rate": [1, 3]}, [(0.03, 1), (0.03, 3)]),
        ({"learning_rate": [0.1]}, [(0.1, 2)]),
    ],
)
def test_the_members_of_a_sweep(osora: dict[str, Any], expected: list[tuple[float, float]]) -> None:
    base = replace(DEFAULT, sigma_rate=osora.get("sigma_rate", 2) if osora.get("sigma_rate") == 4 else 2)
    assert rates(sweep_specs(base, osora, at_most=8)) == expected
    # Of our grid some are as good as all; of a tenant's list none is left out in silence.
    listed = osora.get("learning_rate") != "sweep"
    assert rates(sweep_specs(base, osora, at_most=2)) == (expected if listed else expected[:2])


def test_where_only_one_vector_learns_the_grid_is_of_learning_rates_alone() -> None:
    specs = sweep_specs(replace(DEFAULT, train="o"), {"learning_rate": "sweep"}, at_most=8)
    assert rates(specs) == [(0.03, 2), (0.09, 2), (0.01, 2)]


def test_a_plan_holds_the_multiplier_once_the_rate_is_decided() -> None:
    one = replace(DEFAULT, learning_rate=0.06, epochs=5, batch_size=7)
    numbers = {"n_epochs": 5, "batch_size": 7}
    assert plan_of([one]) == {
        "specs": [one.to_dict()],
        "hyperparameters": {**numbers, "learning_rate_multiplier": 2.0},
    }
    assert plan_of([one, DEFAULT])["hyperparameters"] == numbers


def examples(count: int) -> list[Example]:
    return [Example((1, index, 2), (False, True, True), index) for index in range(count)]


def pairs(count: int) -> list[Preference]:
    return [Preference(example, example, example.line) for example in examples(count)]


class FakeEngine:
    """A worker's engine whose sweeps cost so much, or raise that, after so many steps are timed; and that has so many
    jobs. `joining`: one more joins after the first of these steps."""

    def __init__(self, cost: float | Exception = 1.2, jobs: int = 0, steps: int = 2, joining: bool = False) -> None:
        def cost_of_sweep(*_: Any) -> Iterator[float | None]:
            for _ in range(steps):
                yield None
                self.timed += 1
                if joining:
                    self.engine.jobs["another"] = None
            if isinstance(cost, Exception):
                raise cost
            yield cost

        self.timed = 0
        throughput = SimpleNamespace(cost_of_sweep=cost_of_sweep)
        basis = SimpleNamespace(rank=128, full_rank_of=lambda targets: 128)
        runtime = SimpleNamespace(parameters=1_000_000, basis=basis)
        self.engine = SimpleNamespace(throughput=throughput, jobs=dict.fromkeys(range(jobs)), runtime=runtime)

    def post(self, function: Callable[[Any], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(self.engine))
        except Exception as error:
            future.set_exception(error)
        return future


def decided(
    engine: FakeEngine | None = None,
    *,
    rows: int = 400,
    valid: int = 0,
    at_most: int = 8,
    events: list[str] | None = None,
    **asked: Any,
) -> Any:
    hyperparameters = {**AUTO, **asked.pop("hyperparameters", {})}
    method = asked.pop("method", "supervised")
    probe_steps = asked.pop("probe_steps", None)
    records = SimpleNamespace(
        attempt=SimpleNamespace(
            method=method,
            hyperparameters=hyperparameters,
            osora=asked,
            points=points({"preset": "small", **asked}, Room(Ranks(held=128, full=128))),
            seed=1,
            probe_steps=probe_steps,
        ),
        settings=SimpleNamespace(sweep_members=at_most),
        say=(events if events is not None else []).append,
    )

    def job(spec: JobSpec, train: Sequence[Row]) -> TrainingJob:
        return TrainingJob("job", spec, train, cast(Any, None))

    make = pairs if method == "dpo" else examples
    train, held = make(rows), make(valid)
    decision = decide(cast(Any, records), train, held, job, cast(Any, engine or FakeEngine()), Reports())
    chosen_by = Rows.of(decision.specs, train, held, 1)
    return decision, announcement(job(decision.specs[0], chosen_by.train), decision, chosen_by)


def test_it_is_said_that_steps_are_timed_and_only_then() -> None:
    events: list[str] = []
    decided(FakeEngine(steps=5), events=events)
    assert events == ["Measuring what a sweep of 6 learning rates would take, for at most 5% of the job's time"]
    events.clear()
    decided(FakeEngine(steps=0), events=events)
    assert events == []


def test_a_job_that_joins_meanwhile_does_not_wait_for_the_measuring() -> None:
    engine = FakeEngine(steps=9, joining=True)
    decision, said = decided(engine)
    assert "the worker trains other jobs already" in said
    assert engine.timed == 1
    assert decision.data["sweep"] is False


def test_auto_sweeps_where_that_is_cheap_and_says_by_how_much() -> None:
    decision, said = decided(FakeEngine(1.2))
    assert len(decision.specs) == 6
    assert decision.data == {"sweep": True, "cost": 1.2, "limit": 1.5}
    assert "a sweep of 6 takes 1.2 times as long as a single job here" in said
    assert "360 rows" in said
    assert "40 training rows that none of them trains on" in said


@pytest.mark.parametrize(
    ("engine", "request_", "why"),
    [
        (FakeEngine(1.6), {}, "a sweep of 6 would take about 1.6 times as long as a single job here"),
        (
            FakeEngine(),
            {"rows": 199},
            "a sweep needs 20 rows to choose by, of the validation file or a tenth of this one, and has 19",
        ),
        (
            FakeEngine(),
            {"valid": 19},
            "a sweep needs 20 rows to choose by, of the validation file or a tenth of this one, and has 19",
        ),
        (FakeEngine(jobs=1), {}, "the worker trains other jobs already"),
        (FakeEngine(OutOfSlots("full")), {}, "the worker has no room for a sweep of 6"),
        (FakeEngine(JobTooShort("short")), {}, "the job is too short to measure first what a sweep of 6 would take"),
        (FakeEngine(), {"at_most": 1}, "this worker trains one job at a time"),
    ],
)
def test_else_it_is_the_default_and_the_job_says_why(engine: FakeEngine, request_: dict[str, Any], why: str) -> None:
    decision, said = decided(engine, **request_)
    assert rates(decision.specs) == [(JobSpec.learning_rate, JobSpec.sigma_rate)]
    assert f"learning rate 0.03 (the default, as {why}" in said
    assert f"{request_.get('rows', 400)} rows" in said  # none is held back
    assert decision.data["sweep"] is False


def test_a_single_epoch_is_said_to_be_one() -> None:
    for epochs, words in ((1, "400 rows, 1 epoch, batch"), (2, "400 rows, 2 epochs, batch")):
        _, said = decided(learning_rate=0.1, hyperparameters={"n_epochs": epochs})
        assert words in said


@pytest.mark.parametrize(
    "asked",
    [{"learning_rate": 0.1}, {"hyperparameters": {"learning_rate_multiplier": 2}}],
)
def test_a_chosen_rate_is_not_swept(asked: dict[str, Any]) -> None:
    decision, said = decided(FakeEngine(1.0), **asked)
    assert len(decision.specs) == 1
    assert "default" not in said
    assert decision.to_event() == decision.specs[0].to_dict()


@pytest.mark.parametrize(
    ("engine", "asked", "members", "words"),
    [
        (FakeEngine(1.2), {}, 6, "a sweep of 6 takes 1.2 times as long as a single job here"),
        (FakeEngine(1.6), {}, 1, "learning rate 0.03 (the default, as a sweep of 6 would take about 1.6 times"),
        (
            FakeEngine(5.0),
            {"learning_rate": "sweep"},
            6,
            "of which the loss on 40 training rows that none of them trains on chooses one",
        ),
        (
            FakeEngine(5.0),
            {"learning_rate": [0.1, 0.2], "valid": 30},
            2,
            "of which the loss on 30 validation rows chooses one: 0.1",
        ),
        (FakeEngine(5.0), {"learning_rate": 0.1}, 1, "learning rate 0.1"),
    ],
)
def test_preferences_are_swept_like_answers(
    engine: FakeEngine, asked: dict[str, Any], members: int, words: str
) -> None:
    """Every member is a spec of its method, at the beta that was asked for."""
    decision, said = decided(engine, method="dpo", hyperparameters={"beta": 0.3}, **asked)
    assert len(decision.specs) == members
    assert {(spec.method, spec.beta) for spec in decision.specs} == {("dpo", 0.3)}
    assert words in said
    assert plan_of(decision.specs)["hyperparameters"]["beta"] == 0.3


def test_who_asks_for_a_sweep_gets_it_whatever_it_costs() -> None:
    decision, said = decided(FakeEngine(5.0, jobs=3), rows=10, valid=3, learning_rate=[0.1, 0.2])
    assert rates(decision.specs) == [(0.1, 2.0), (0.2, 2.0)]
    assert "3 validation rows" in said
    assert "10 rows" in said
    assert decision.to_event() == {"sweep": [spec.to_dict() for spec in decision.specs]}


def test_batches_and_epochs_go_by_the_rows_that_are_left() -> None:
    """90 rows make batches of 4, and 81 too; 480 make epochs that 432 make more of."""
    decision, _ = decided(rows=480, learning_rate="sweep")
    single, _ = decided(rows=480, learning_rate=0.03)
    assert decision.specs[0].epochs == round(400 * decision.specs[0].batch_size / 432)
    assert single.specs[0].epochs == round(400 * single.specs[0].batch_size / 480)


def test_a_decision_of_before_needs_no_reason() -> None:
    assert Decision([DEFAULT]).to_event() == DEFAULT.to_dict()
