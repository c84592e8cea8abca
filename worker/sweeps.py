"""Whether a job sweeps its learning rate, on which rows, and what its history says of that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from osora_common.hyperparameters import ENOUGH_TO_CHOOSE, leaves_rate_open, members, wants_sweep
from osora_core.data import Row
from osora_core.errors import OutOfSlots
from osora_core.training import JobSpec, TrainingEngine, TrainingJob
from osora_core.training.errors import JobTooShort
from osora_core.training.sweep import choice_of, hold_back
from osora_core.training.throughput import CHEAP, MEASURING
from worker.hyperparameters import ranks_on, training_spec
from worker.records import Records
from worker.reports import Reports
from worker.threads import EngineThread

MakeJob = Callable[[JobSpec, Sequence[Row]], TrainingJob]


@dataclass(frozen=True)
class Decision:
    """The specs to train, and for an "auto" rate why it is these."""

    specs: list[JobSpec]
    why: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def to_event(self) -> dict[str, Any]:
        """For programs: the spec, or all of a sweep's, and for an "auto" rate how it was decided."""
        specs = [spec.to_dict() for spec in self.specs]
        return (specs[0] if len(specs) == 1 else {"sweep": specs}) | ({"auto": self.data} if self.data else {})


@dataclass(frozen=True)
class Rows:
    """A job's rows: those it trains on, and those that a sweep chooses by; `held_back`: whether these were training
    rows."""

    train: Sequence[Row]
    choice: Sequence[Row] = ()
    held_back: bool = False

    @classmethod
    def of(cls, specs: Sequence[JobSpec], train: Sequence[Row], valid: Sequence[Row], seed: int) -> "Rows":
        """A sweep chooses by the validation file's rows, or by training rows that no member trains on."""
        if len(specs) == 1:
            return cls(train)
        if valid:
            return cls(train, choice_of(valid, seed), held_back=False)
        rest, held = hold_back(train, seed)
        return cls(rest, held, held_back=True)


class OthersTrainError(Exception):
    """The engine has jobs: what a step takes now says nothing, and they should not wait."""


def decide(
    records: Records,
    train: Sequence[Row],
    valid: Sequence[Row],
    job: MakeJob,
    engine: EngineThread,
    reports: Reports,
) -> Decision:
    """What the job trains: one spec, or several as a sweep, of our grid up to as many as the settings allow.

    A tenant who asks for a sweep gets it. A rate that is left to us is swept where that is cheap, which the engine
    measures if it has to; else it is the default. Raises `Interruption` when a signal comes meanwhile.
    """
    attempt, at_most = records.attempt, records.settings.sweep_members
    hyperparameters, osora, seed = attempt.hyperparameters, attempt.osora, attempt.seed
    ranks = ranks_on(engine.engine.runtime, osora.get("target_modules", JobSpec.target_modules))
    make = partial(training_spec, hyperparameters, osora, seed=seed, method=attempt.method, ranks=ranks)
    single = make(rows=len(train))
    asked = wants_sweep(osora)
    if not asked and not leaves_rate_open(hyperparameters, osora):
        return Decision([single])
    specs, _ = members(
        lambda rows: make(rows=rows),
        osora,
        at_most,
        training=len(train),
        validation=len(valid),
    )
    if asked:
        return Decision(specs)
    if attempt.probe_steps is not None:
        return Decision([single], "the default, as a probe does not measure what a sweep would take")
    rows = Rows.of(specs, train, valid, seed)
    cost, reason = _cost(records, job, specs, rows, engine, reports)
    sweeps = cost is not None and cost <= CHEAP
    return Decision(specs if sweeps else [single], reason, {"sweep": sweeps, "cost": cost, "limit": CHEAP})


def _cost(
    records: Records, job: MakeJob, specs: Sequence[JobSpec], rows: Rows, engine: EngineThread, reports: Reports
) -> tuple[float | None, str]:
    """What a sweep takes over what a single job takes, None where that is not to be known, and a reason in words."""
    members, choice = len(specs), rows.choice
    if members == 1:
        return None, "the default, as this worker trains one job at a time"
    if len(choice) < ENOUGH_TO_CHOOSE:
        return None, (
            f"the default, as a sweep needs {ENOUGH_TO_CHOOSE} rows to choose by, of the validation file or a tenth of "
            f"this one, and has {len(choice)}"
        )
    try:
        cost = _measured(records, job(specs[0], rows.train), members, choice, engine, reports)
    except OutOfSlots:
        return None, f"the default, as the worker has no room for a sweep of {members}"
    except OthersTrainError:
        return None, "the default, as the worker trains other jobs already"
    except JobTooShort:
        return None, f"the default, as the job is too short to measure first what a sweep of {members} would take"
    if cost <= CHEAP:
        return cost, f"a sweep of {members} takes {cost:.1f} times as long as a single job here"
    return (
        cost,
        f"the default, as a sweep of {members} would take about {cost:.1f} times as long as a single job here",
    )


def _measured(
    records: Records, job: TrainingJob, members: int, choice: Sequence[Row], engine: EngineThread, reports: Reports
) -> float:
    """What the engine says a sweep costs, one measured step after another, so that a signal or a job that joins waits
    for one at most."""
    costs = engine.engine.throughput.cost_of_sweep(job, members, choice)

    def following(e: TrainingEngine) -> float | None:
        if e.jobs:
            raise OthersTrainError
        return next(costs)

    is_told = False
    while (cost := reports.wait_for(engine.post(following))) is None:
        if not is_told:
            records.say(
                f"Measuring what a sweep of {members} learning rates would take, for at most {MEASURING:.0%} of the "
                "job's time"
            )
        is_told = True
    return cost
