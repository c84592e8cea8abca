"""A job as it would be: `POST /jobs?dry_run=true`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi.concurrency import run_in_threadpool

from api.files.measuring import measured
from api.jobs.probing import Probed, probe
from api.jobs.schemas import DryRunOut, RowsOut, TokensOut
from api.services import Services
from osora_common.hyperparameters import (
    ENOUGH_TO_CHOOSE,
    MAX_CHOICE_ROWS,
    Spec,
    held_back,
    held_out,
    leaves_rate_open,
    members,
    resolved_hyperparameters,
    spec_values,
    sweep_specs,
    wants_sweep,
)
from osora_common.ranks import Ranks
from osora_data.measures import Measure
from registry import bases, jobs
from registry.jobs import JobRequest, Rehearsal, RowCounts
from registry.models import File
from registry.tenants import Principal


async def dry_run(
    services: Services, principal: Principal, request: JobRequest, offers: bases.Offers, probe_steps: int | None
) -> DryRunOut:
    """All that can be told of a job. Nothing is kept; a probe goes when it is over. Raises what submission does."""
    found = await run_in_threadpool(jobs.rehearse, services.registry, principal, request, offers)
    warnings = [f"{found.overlap['message']}. Next: {found.overlap['next_action']}."] if found.overlap else []
    training = await _rows(services, found, found.training_file, warnings)
    validation = None
    if found.validation_file is not None:
        validation = await _rows(services, found, found.validation_file, warnings)
    ranks = bases.ranks(offers, found.base, found.osora.get("target_modules"), services.settings)
    plan = _plan(found, training, validation, services.settings.sweep_members, ranks, warnings)
    probed = Probed()
    if probe_steps is not None:
        with_seed = replace(request, seed=found.seed)
        probed = await probe(services, principal, with_seed, found.base, offers, probe_steps)
        warnings += [probed.problem] if probed.problem else []
    return _answer(found, plan, probed, offers.get(found.base, bases.Offer()), warnings)


@dataclass(frozen=True)
class _Rows:
    """What a job takes of a file; tokens are of one epoch, None where nobody has counted them."""

    rows: int
    dropped: int = 0
    truncated: int = 0
    tokens: int | None = None
    trained: int | None = None

    def part(self, rows: int) -> "_Rows":
        """So many of them, taken to be as long as the others."""

        def share(count: int | None) -> int | None:
            return count if count is None or rows == self.rows else round(count * rows / max(self.rows, 1))

        return replace(self, rows=rows, tokens=share(self.tokens), trained=share(self.trained))


@dataclass(frozen=True)
class _Plan:
    """What a worker would decide: see `worker.sweeps.decide`."""

    specs: list[Spec]
    training: _Rows
    validation: _Rows
    dropped: int
    truncated: int


async def _rows(services: Services, found: Rehearsal, file: File, warnings: list[str]) -> _Rows:
    overlong = found.osora.get("overlong", "refuse")
    measure = await measured(services, file, found.base, limit=found.osora.get("max_length"))
    if not isinstance(measure, Measure):
        warnings.append(f"The tokens of file {file.id!r} are not known: {measure}.")
        if overlong != "refuse":
            warnings.append("So it is not known either how many rows are too long: all are counted here.")
        return _Rows(file.rows or 0)
    if measure.counted < measure.rows:
        warnings.append(f"Tokens of file {file.id!r} are estimates from {measure.counted:,} of {measure.rows:,} rows.")
    if overlong == "refuse":
        return _Rows(measure.rows, tokens=measure.tokens, trained=measure.trained_tokens)
    kept = measure.dropped if overlong == "drop" else measure.truncated
    dropped = measure.rows - kept.rows
    if not kept.rows:
        warnings.append(f"The job would fail: no row of file {file.id!r} is left within {measure.limit} tokens.")
    truncated = measure.rows_over - dropped if overlong == "truncate" else 0
    return _Rows(kept.rows, dropped, truncated, kept.tokens, kept.trained_tokens)


def _plan(
    found: Rehearsal, training: _Rows, validation: _Rows | None, at_most: int, ranks: Ranks, warnings: list[str]
) -> _Plan:
    dropped = training.dropped + (validation.dropped if validation else 0)
    truncated = training.truncated + (validation.truncated if validation else 0)
    share = found.osora.get("validation_share")
    valid = validation or _Rows(0, tokens=0, trained=0)
    if share is not None and training.rows > 1:
        held = held_out(training.rows, share)
        training, valid = training.part(training.rows - held), training.part(held)
        warnings.append(
            "Rows with one prompt are held out together: if the file repeats prompts, the numbers of rows may differ."
        )

    def make(rows: int) -> Spec:
        values = spec_values(
            found.hyperparameters, found.osora, rows=rows, seed=found.seed, method=found.method, ranks=ranks
        )
        return Spec(**values)

    specs, trained = [make(training.rows)], training.rows
    if wants_sweep(found.osora):
        specs, trained = members(make, found.osora, at_most, training=training.rows, validation=valid.rows)
        if len(specs) > 1:
            warnings.append(
                f"A sweep of {len(specs)} takes longer than the single job whose time is given here, at most "
                f"{len(specs)} times as long."
            )
    elif leaves_rate_open(found.hyperparameters, found.osora):
        grid = sweep_specs(specs[0], found.osora, at_most)
        choice = min(MAX_CHOICE_ROWS, valid.rows) or held_back(training.rows, 0)
        if len(grid) > 1 and choice >= ENOUGH_TO_CHOOSE:
            warnings.append(
                f"The learning rate is left open: the worker sweeps {len(grid)} where it finds that cheap when the job "
                f"begins. What is told here is the default, {specs[0].learning_rate:g}."
            )
    return _Plan(specs, training.part(trained), valid, dropped, truncated)


def _answer(found: Rehearsal, plan: _Plan, probed: Probed, offer: bases.Offer, warnings: list[str]) -> DryRunOut:
    first = plan.specs[0]
    rows: RowCounts = {
        "training": plan.training.rows,
        "validation": plan.validation.rows,
        "dropped": plan.dropped,
        "truncated": plan.truncated,
    }
    hyperparameters = resolved_hyperparameters(plan.specs)
    specs = [spec.to_dict() for spec in plan.specs]
    if probed.plan is not None:  # which are the worker's own figures
        rows = probed.plan.get("rows", rows)
        hyperparameters, specs = probed.plan["hyperparameters"], probed.plan["specs"]
    decided = found.hyperparameters | hyperparameters
    steps = math.ceil(rows["training"] / specs[0]["batch_size"]) * specs[0]["epochs"]
    seconds = _seconds(found, plan, probed, steps, specs[0]["epochs"], warnings)
    start = found.forecast.estimated_start
    if start is None:
        warnings.append(f"Its start is not known: it would wait for {found.forecast.waiting_for}.")
    return DryRunOut(
        model=found.base,
        method={"type": found.method, found.method: {"hyperparameters": decided}},
        seed=found.seed,
        hyperparameters=decided,
        osora=_settings(found.osora, specs),
        rows=RowsOut(**rows),
        tokens=TokensOut(
            training=plan.training.tokens, trained=plan.training.trained, validation=plan.validation.tokens
        ),
        steps=steps,
        queue_position=found.forecast.queue_position,
        estimated_start=start,
        estimated_finish=None if start is None or seconds is None else start + round(seconds),
        estimated_seconds=None if seconds is None else round(seconds, 1),
        adapter_bytes=_adapter_bytes(found, first, offer, warnings),
        warnings=warnings,
        probe=probed.out,
    )


def _settings(osora: Mapping[str, Any], specs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the job trains with: the settings that were asked for, and in place of what was left open its values."""
    if len(specs) == 1:
        return {**osora, **specs[0]}
    rates = [{"learning_rate": spec["learning_rate"], "sigma_rate": spec["sigma_rate"]} for spec in specs]
    return {**osora, **specs[0], "learning_rate": None, "sigma_rate": None, "sweep": rates}


def _seconds(
    found: Rehearsal, plan: _Plan, probed: Probed, steps: int, epochs: int, warnings: list[str]
) -> float | None:
    """How long it trains: by the probe's own steps, or else as the last jobs of the base have."""
    further = 0.0 if found.pace is None else found.pace.further_seconds
    if probed.out is not None:
        return further + steps * probed.out.seconds / probed.out.steps
    if found.pace is None:
        warnings.append(f"How long it takes is not known: no {found.method} job on {found.base} has succeeded yet.")
        return None
    if plan.training.tokens is None:
        warnings.append("How long it takes is not known, as its tokens are not.")
        return None
    return found.pace.seconds(plan.training.tokens * epochs)


def _adapter_bytes(found: Rehearsal, spec: Spec, offer: bases.Offer, warnings: list[str]) -> int | None:
    """Of its vectors in float32; names and settings in its file come to some thousand bytes more."""
    targets = None if spec.target_modules == "all-linear" else set(spec.target_modules)
    if targets is not None and "from_adapter" in found.osora:
        targets = None if found.begun_with is None else targets | set(found.begun_with.target_modules)
    parameters = offer.parameters(spec.rank, targets)
    if parameters is None:
        warnings.append("The adapter's size is not known: no inference server has loaded the base.")
        return None
    return 4 * parameters
