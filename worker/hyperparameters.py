"""From what a tenant asked for to training specs: where "auto" becomes numbers, and "sweep" a grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from osora_core.errors import UserError
from osora_core.training import JobSpec
from registry.jobs import Plan
from registry.models import Method

DEFAULT_LEARNING_RATE = JobSpec.learning_rate
# Our own grid: these multiples of the default, each with these rates of s over o. The defaults come first.
GRID_RATES = (1.0, 3.0, 1 / 3)
GRID_SIGMA_RATES = (JobSpec.sigma_rate, JobSpec.sigma_rate / 4)
# What decides how a job runs, not what comes out of it, and what is worked out below.
_NOT_THE_SPECS = (
    "learning_rate", "sigma_rate", "max_length", "checkpoint_steps", "checkpoint_seconds", "sample_prompts",
    "sample_tokens", "from_adapter", "priority",
)  # fmt: skip


def training_spec(
    hyperparameters: Mapping[str, Any], osora: Mapping[str, Any], *, rows: int, seed: int, method: Method = "supervised"
) -> JobSpec:
    """The spec of a job over `rows` rows; where rates are to be swept, with the default ones.

    "auto" batches grow with the data, from 4 to 64 rows, and "auto" epochs are as many as give a small dataset about
    400 steps, from 2 to 10: vectors learn by steps, not by batch size. Raises UserError for a rate that would be zero.
    """
    batch_size = _number(hyperparameters.get("batch_size"), min(64, max(4, 2 ** round(math.log2(max(rows, 1) / 80)))))
    epochs = _number(hyperparameters.get("n_epochs"), min(10, max(2, round(400 * batch_size / max(rows, 1)))))
    multiplier = _number(hyperparameters.get("learning_rate_multiplier"), 1.0)
    if DEFAULT_LEARNING_RATE * multiplier == 0:
        raise UserError(
            f"learning_rate_multiplier is {multiplier:g}, which makes the learning rate 0",
            param="hyperparameters.learning_rate_multiplier",
            next_action="choose a higher multiplier, 1 for the default rate",
        )
    own = {name: value for name, value in osora.items() if name not in _NOT_THE_SPECS}
    return JobSpec.from_dict(
        {
            **own,
            "seed": seed,
            "epochs": int(epochs),
            "batch_size": int(batch_size),
            "learning_rate": _number(osora.get("learning_rate"), DEFAULT_LEARNING_RATE * multiplier),
            "sigma_rate": _number(osora.get("sigma_rate"), JobSpec.sigma_rate),
            "method": method,
            "beta": _number(hyperparameters.get("beta"), JobSpec.beta),
        }
    )


def sweep_specs(spec: JobSpec, osora: Mapping[str, Any], at_most: int) -> list[JobSpec]:
    """The members of a sweep around `spec`: every listed learning rate with every listed rate of s, or the grid's.

    Of our grid, those over `at_most` are left out, from its end; what is listed is the tenant's, and stays whole.
    """
    rates, sigma_rates = osora.get("learning_rate"), osora.get("sigma_rate")
    if isinstance(sigma_rates, list) and not isinstance(rates, list) and rates != "sweep":
        rates = [spec.learning_rate]
    most = None
    if not isinstance(rates, list):
        most = at_most
        rates = [float(f"{spec.learning_rate * factor:.3g}") for factor in GRID_RATES]
        if sigma_rates is None and spec.train == "both":
            sigma_rates = GRID_SIGMA_RATES
    if not isinstance(sigma_rates, Sequence):
        sigma_rates = [spec.sigma_rate]
    specs = [replace(spec, learning_rate=rate, sigma_rate=over) for over in sigma_rates for rate in rates]
    return specs[:most]


def wants_sweep(osora: Mapping[str, Any]) -> bool:
    """Whether the tenant asked for a sweep, by name or by listing values."""
    return osora.get("learning_rate") == "sweep" or any(
        isinstance(osora.get(name), list) for name in ("learning_rate", "sigma_rate")
    )


def leaves_rate_open(hyperparameters: Mapping[str, Any], osora: Mapping[str, Any]) -> bool:
    """Whether the learning rate is ours to choose."""
    chosen = (osora.get("learning_rate"), hyperparameters.get("learning_rate_multiplier"))
    return all(value in (None, "auto") for value in chosen)


def plan_of(specs: Sequence[JobSpec]) -> Plan:
    """What the registry keeps of one spec, or of a sweep's."""
    first = specs[0]
    hyperparameters: dict[str, Any] = {"n_epochs": first.epochs, "batch_size": first.batch_size}
    if first.method == "dpo":
        hyperparameters["beta"] = first.beta
    if len(specs) == 1:
        hyperparameters["learning_rate_multiplier"] = first.learning_rate / DEFAULT_LEARNING_RATE
    return {"specs": [spec.to_dict() for spec in specs], "hyperparameters": hyperparameters}


def _number(value: Any, default: float) -> float:
    return value if isinstance(value, int | float) else default
