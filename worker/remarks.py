"""What a job's history says in words about its training."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from osora_common.presets import Point
from osora_core.training import Evaluation, Outcome, Rung, SweepOutcome, TrainingJob
from registry.models import EventLevel
from worker.sweeps import Decision, Rows

_STILL = 1e-3
"""A validation loss that has moved by less than this share of itself has not moved."""


def announcement(job: TrainingJob, decision: Decision, rows: Rows) -> str:
    """What is going to be trained, and why at these rates if they were left to us."""
    spec, specs = job.spec, decision.specs
    because = f" ({decision.why})" if decision.why else ""
    differ = _differ(spec.shape for spec in specs)
    words = (
        f"Training {_count(job.total_steps, 'step')}: {_count(len(job.train), 'row')}, {_count(spec.epochs, 'epoch')}, "
        f"batch size {spec.batch_size}, "
        + ("" if differ else f"{_shape(*spec.shape)}, ")
        + ("from an adapter, " if job.start else "")
    )
    if len(specs) == 1:
        return f"{words}learning rate {spec.learning_rate:g}{because}"
    source = "training rows that none of them trains on" if rows.held_back else "validation rows"
    rates = ", ".join((f"{_shape(*spec.shape)} at " if differ else "") + _rates(spec.rates()) for spec in specs)
    chosen = f"of which the loss on {len(rows.choice)} {source} chooses one: {rates}"
    of = "" if differ else " rates"
    return f"{words}a sweep of {len(specs)}{of}{because}, {chosen}"


def _differ(shapes: Iterable[tuple[int, int]]) -> bool:
    return len(set(shapes)) > 1


def _shape(rank: int, mix: int) -> str:
    return f"rank {rank}" + (f", a mix of size {mix}" if mix else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def rung_message(rung: Rung) -> str:
    """Who of a sweep goes on, and which is the best so far."""
    left = [row for row in rung.members if row["fate"] is None]
    best = min(left, key=lambda row: math.inf if row["loss"] is None else row["loss"])
    words = f"Sweep after step {rung.step} of {rung.total_steps}: {len(left)} of {len(rung.members)} go on"
    if best["loss"] is None:  # somebody diverged before anything was measured
        return words
    of = f"{_shape(best['rank'], best['mix'])} at " if _differ((m["rank"], m["mix"]) for m in rung.members) else ""
    return f"{words}, first {of}learning rate {_rates(best)} (loss {best['loss']:.4f})"


def remarks(job: TrainingJob, outcome: Outcome, points: Sequence[Point] = ()) -> Iterator[tuple[str, EventLevel]]:
    """Which rates a sweep chose, and of several points which; when it ended, if that was early; which state was kept,
    if that was chosen; and a warning where training has made nothing better."""
    if isinstance(outcome, SweepOutcome):
        of = f"{_shape(*outcome.spec.shape)} at " if len(points) > 1 else ""
        yield (
            f"The sweep chose {of}learning rate {_rates(outcome.spec.rates())}. Only this one's "
            f"{outcome.trained_tokens} tokens are counted; sweep.csv has the curves of all",
            "info",
        )
        yield from _against_the_start(outcome)
    if outcome.step < job.total_steps:
        patience = job.spec.early_stopping_patience
        epochs = "an epoch" if patience == 1 else f"{patience} epochs"
        yield (
            f"Stopped after step {outcome.step} of {job.total_steps}: the validation loss has not fallen for {epochs}",
            "info",
        )
    start, kept = outcome.curve.start, outcome.curve.at(outcome.adapter_step)
    rise = outcome.curve.training_rise(job.steps_per_epoch)
    if start is None and rise is not None:
        yield (
            f"Training made it worse: the training loss rose from {rise[0]:.4f} to {rise[1]:.4f}, and without "
            "validation no better state could be chosen. Try a lower learning rate, and name a validation file",
            "warn",
        )
    if start is None or kept is None:
        return
    if kept is start:
        begun = "the adapter that it began with" if job.start else "the bare base"
        yield (
            f"No state was better than the start: its validation loss, {start.loss:.4f}, is the lowest, so the adapter "
            f"answers as {begun} does. {_advice(start, outcome.curve.evaluations)}",
            "warn",
        )
    elif job.spec.keep == "best":
        yield f"Keeping the state of step {kept.step}: its validation loss, {kept.loss:.4f}, is the lowest", "info"
    elif outcome.worse_than_start:
        yield (
            f"The last state is worse than the start: validation loss {kept.loss:.4f}, and {start.loss:.4f} before. "
            'Try a lower learning rate, or keep: "best"',
            "warn",
        )


def _against_the_start(outcome: SweepOutcome) -> Iterator[tuple[str, EventLevel]]:
    """Where no evaluation tells: a sweep's best may be the best of bad ones."""
    if outcome.choice_losses is None:
        return
    before, after = outcome.choice_losses
    if after > before:
        yield (
            f"Even the best of the sweep is worse than the start: its loss on the rows that it was chosen by is "
            f"{after:.4f}, and was {before:.4f} before. Try lower learning rates",
            "warn",
        )


def _advice(start: Evaluation, evaluations: Sequence[Evaluation]) -> str:
    """What to try where nothing was better than the start: whether training did harm or nothing tells."""
    farthest = max(abs(evaluation.loss - start.loss) for evaluation in evaluations)
    if farthest <= _STILL * start.loss:
        return "Training changed next to nothing: try a higher learning rate"
    return "Try a lower learning rate, or rows more like those of the validation file"


def _rates(member: Mapping[str, Any]) -> str:
    of_mix = f" and {member['mix_rate']:g} times for the mix" if "mix_rate" in member else ""
    return f"{member['learning_rate']:g} with {member['sigma_rate']:g} times that for s{of_mix}"
