"""From what a tenant asks for to what is trained: where "auto" becomes numbers, and "sweep" a grid.

The API says by these rules what a job would train with, and a worker trains by them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from osora_common.ranks import ANY_RANK, DEFAULT_RANK, Ranks

Overlong = Literal["refuse", "truncate", "drop"]
"""What becomes of rows that are longer than the limit."""

MAX_CHOICE_ROWS = 100
"""More rows to choose a sweep's member by would cost more than they tell."""
ENOUGH_TO_CHOOSE = 20
"""Fewer rows tell noise from learning too badly to choose by them unasked."""


@dataclass(frozen=True)
class Spec:
    """Everything that decides a job's result besides the base and the data.

    learning_rate is relative: sigma moves by about sigma_rate * learning_rate * s0 a step, delta by learning_rate. It
    rises linearly over the first warmup_ratio of the steps and falls linearly to zero at the end.

    keep: which state becomes the adapter, the one with the lowest validation loss, that before the first step among
    them, or the last; without validation rows it is the last. early_stopping_patience: the job ends after so many
    epochs without a lower validation loss.

    method: how it learns from its rows, one of `osora_core.training.methods`; beta is of the loss of preferences there.
    """

    seed: int = 0
    epochs: int = 3
    batch_size: int = 4
    learning_rate: float = 0.03
    # Singular values bear a faster rate than outputs do: on the bundled example twice the rate learns most.
    sigma_rate: float = 2.0
    rank: int = DEFAULT_RANK
    target_modules: str | tuple[str, ...] = "all-linear"
    train: Literal["both", "s", "o"] = "both"
    warmup_ratio: float = 0.05
    max_grad_norm: float = 1.0
    evaluate: Literal["epoch", "never"] = "epoch"
    keep: Literal["best", "last"] = "best"
    early_stopping_patience: int | None = None
    method: str = "supervised"
    beta: float = 0.1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def steps(self, rows: int) -> int:
        """Those of a job over so many rows, if it does not end early."""
        return math.ceil(rows / self.batch_size) * self.epochs


S = TypeVar("S", bound=Spec)

DEFAULT_LEARNING_RATE = Spec.learning_rate
# Our own grid: these multiples of the default, each with these rates of s over o. The defaults come first.
_GRID_RATES = (1.0, 3.0, 1 / 3)
_GRID_SIGMA_RATES = (Spec.sigma_rate, Spec.sigma_rate / 4)
# What decides how a job runs, not what comes out of it; what is done with its rows before; and what is worked out here.
_NOT_THE_SPECS = (
    "learning_rate", "sigma_rate", "max_length", "overlong", "validation_share", "checkpoint_steps",
    "checkpoint_seconds", "sample_prompts", "sample_tokens", "from_adapter", "priority",
)  # fmt: skip


def spec_values(
    hyperparameters: Mapping[str, Any], osora: Mapping[str, Any], *, rows: int, seed: int, method: str = "supervised",
    ranks: Ranks = ANY_RANK,
) -> dict[str, Any]:  # fmt: skip
    """The fields of the spec of a job over `rows` rows; where rates are to be swept, with the default ones.

    "auto" batches grow with the data, from 4 to 64 rows, and "auto" epochs are as many as give a small dataset about
    400 steps, from 2 to 10: vectors learn by steps, not by batch size.
    """
    batch_size = _number(hyperparameters.get("batch_size"), min(64, max(4, 2 ** round(math.log2(max(rows, 1) / 80)))))
    epochs = _number(hyperparameters.get("n_epochs"), min(10, max(2, round(400 * batch_size / max(rows, 1)))))
    own = {name: value for name, value in osora.items() if name not in _NOT_THE_SPECS}
    return {
        **own,
        "rank": ranks.resolved(osora.get("rank")),
        "seed": seed,
        "epochs": int(epochs),
        "batch_size": int(batch_size),
        "learning_rate": _number(osora.get("learning_rate"), scaled_rate(hyperparameters)),
        "sigma_rate": _number(osora.get("sigma_rate"), Spec.sigma_rate),
        "method": method,
        "beta": _number(hyperparameters.get("beta"), Spec.beta),
    }


def scaled_rate(hyperparameters: Mapping[str, Any]) -> float:
    """The default learning rate, by the multiplier that was asked for; 0 where that is too small."""
    return DEFAULT_LEARNING_RATE * _number(hyperparameters.get("learning_rate_multiplier"), 1.0)


def sweep_specs(spec: S, osora: Mapping[str, Any], at_most: int) -> list[S]:
    """The members of a sweep around `spec`: every listed learning rate with every listed rate of s, or the grid's.

    Of our grid, those over `at_most` are left out, from its end; what is listed is the tenant's, and stays whole.
    """
    rates, sigma_rates = osora.get("learning_rate"), osora.get("sigma_rate")
    if isinstance(sigma_rates, list) and not isinstance(rates, list) and rates != "sweep":
        rates = [spec.learning_rate]
    most = None
    if not isinstance(rates, list):
        most = at_most
        rates = [float(f"{spec.learning_rate * factor:.3g}") for factor in _GRID_RATES]
        if sigma_rates is None and spec.train == "both":
            sigma_rates = _GRID_SIGMA_RATES
    if not isinstance(sigma_rates, Sequence):
        sigma_rates = [spec.sigma_rate]
    specs = [replace(spec, learning_rate=rate, sigma_rate=over) for over in sigma_rates for rate in rates]
    return specs[:most]


def members(
    make: Callable[[int], S], osora: Mapping[str, Any], at_most: int, *, training: int, validation: int
) -> tuple[list[S], int]:
    """The members of a sweep over so many rows, and how many of them they train on; `make` is the spec of so many rows.

    Rows that are held back to choose by may change how many epochs or rows a batch "auto" is.
    """
    specs = sweep_specs(make(training), osora, at_most)
    if len(specs) == 1:
        return specs, training
    left = training - held_back(training, validation)
    return sweep_specs(make(left), osora, at_most), left


def wants_sweep(osora: Mapping[str, Any]) -> bool:
    """Whether the tenant asked for a sweep, by name or by listing values."""
    return osora.get("learning_rate") == "sweep" or any(
        isinstance(osora.get(name), list) for name in ("learning_rate", "sigma_rate")
    )


def leaves_rate_open(hyperparameters: Mapping[str, Any], osora: Mapping[str, Any]) -> bool:
    """Whether the learning rate is ours to choose."""
    chosen = (osora.get("learning_rate"), hyperparameters.get("learning_rate_multiplier"))
    return all(value in (None, "auto") for value in chosen)


def held_back(training: int, validation: int) -> int:
    """How many of so many training rows a sweep holds back to choose by: none where there are validation rows, else a
    tenth, at least one and at most MAX_CHOICE_ROWS. A single row is both trained on and chosen by."""
    return 0 if validation or training < 2 else min(MAX_CHOICE_ROWS, max(1, training // 10))


def held_out(rows: int, share: float) -> int:
    """How many of so many rows are validated on where a share of them is to be: at least one, and not all."""
    return max(1, math.floor(share * rows + 0.5))


def resolved_hyperparameters(specs: Sequence[Spec]) -> dict[str, Any]:
    """OpenAI's hyperparameters as numbers, as far as one spec, or all of a sweep's, decide them."""
    first = specs[0]
    hyperparameters: dict[str, Any] = {"n_epochs": first.epochs, "batch_size": first.batch_size}
    if first.method == "dpo":
        hyperparameters["beta"] = first.beta
    if len(specs) == 1:
        hyperparameters["learning_rate_multiplier"] = first.learning_rate / DEFAULT_LEARNING_RATE
    return hyperparameters


def _number(value: Any, default: float) -> float:
    return value if isinstance(value, int | float) else default
