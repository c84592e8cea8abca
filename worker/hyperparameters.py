"""The training specs of a job, by the rules of `osora_common.hyperparameters`."""

from collections.abc import Mapping, Sequence
from typing import Any

from osora_common.hyperparameters import resolved_hyperparameters, scaled_rate, spec_values
from osora_common.ranks import ANY_RANK, Ranks
from osora_core.errors import UserError
from osora_core.runtime import Runtime
from osora_core.training import JobSpec
from registry.jobs import Plan, RowCounts
from registry.models import Method


def training_spec(
    hyperparameters: Mapping[str, Any], osora: Mapping[str, Any], *, rows: int, seed: int,
    method: Method = "supervised", ranks: Ranks = ANY_RANK,
) -> JobSpec:  # fmt: skip
    """The spec of a job over `rows` rows. Raises UserError for a rate that is zero and a rank that is too high."""
    refusal = ranks.refusal(osora.get("rank"))
    if refusal is not None and "from_adapter" not in osora:  # its rank was a good one once, and cannot be another
        raise UserError(refusal[0], param="osora.rank", next_action=refusal[1])
    if scaled_rate(hyperparameters) == 0:
        raise UserError(
            f"learning_rate_multiplier is {hyperparameters['learning_rate_multiplier']:g}, which makes the learning "
            "rate 0",
            param="hyperparameters.learning_rate_multiplier",
            next_action="choose a higher multiplier, 1 for the default rate",
        )
    return JobSpec.from_dict(spec_values(hyperparameters, osora, rows=rows, seed=seed, method=method, ranks=ranks))


def ranks_on(runtime: Runtime, targets: str | Sequence[str]) -> Ranks:
    """What ranks an adapter of these modules can have."""
    basis = runtime.basis
    return Ranks(runtime.parameters, basis.rank, basis.full_rank_of(None if targets == "all-linear" else targets))


def plan_of(specs: Sequence[JobSpec], rows: RowCounts | None = None) -> Plan:
    """What the registry keeps of one spec, or of a sweep's, and of what they train on."""
    plan: Plan = {
        "specs": [spec.to_dict() for spec in specs],
        "hyperparameters": resolved_hyperparameters(specs),
    }
    return plan if rows is None else {**plan, "rows": rows}
