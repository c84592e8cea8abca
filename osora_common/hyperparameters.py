"""From what a tenant asks for to what is trained: where "auto" becomes numbers, and "sweep" a grid.

The API says by these rules what a job would train with, and a worker trains by them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any, Literal, TypeVar

from osora_common.presets import PRESETS, Point, former_point
from osora_common.ranks import DEFAULT_RANK

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

    mix: the size c of the matrix C that trains between U and V of each weight, 0 for none; see `osora_core.operator`.
    It moves by about mix_rate * learning_rate * the mean of the weight's first c s0 a step.

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
    mix: int = 0
    mix_rate: float = 0.1
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

    def to_identity(self) -> dict[str, Any]:
        """What decides a job's result, so that without a mix checkpoints of versions that knew none still agree."""
        values = self.to_dict()
        return values if self.mix else {name: value for name, value in values.items() if name not in _OF_MIXES}

    def rates(self) -> dict[str, float]:
        """Those that a sweep ranges over, by their names; that of a mix where there is one."""
        return {name: getattr(self, name) for name in _RATES if name != "mix_rate" or self.mix}

    @property
    def shape(self) -> tuple[int, int]:
        """Rank and mix: where it is on the dial."""
        return self.rank, self.mix

    def steps(self, rows: int) -> int:
        """Those of a job over so many rows, if it does not end early."""
        return math.ceil(rows / self.batch_size) * self.epochs


_OF_MIXES = ("mix", "mix_rate")

S = TypeVar("S", bound=Spec)

DEFAULT_LEARNING_RATE = Spec.learning_rate
# What a tenant may list values of.
_RATES = ("learning_rate", "sigma_rate", "mix_rate")
# Our own grid: these multiples of the default, each with these rates of s over o, or of a mix. The defaults come first.
_GRID_RATES = (1.0, 3.0, 1 / 3)
_GRID_SIGMA_RATES = (Spec.sigma_rate, Spec.sigma_rate / 4)
# A mix does what s does, and more, so that its rate matters in the place of theirs.
_GRID_MIX_RATES = (Spec.mix_rate, 3 * Spec.mix_rate)
# What decides how a job runs, not what comes out of it; what is done with its rows before; and what is worked out here.
_NOT_THE_SPECS = (
    "preset", "rank", "mix", "learning_rate", "sigma_rate", "mix_rate", "max_length", "overlong", "validation_share",
    "checkpoint_steps", "checkpoint_seconds", "sample_prompts", "sample_tokens", "from_adapter", "priority",
)  # fmt: skip


def spec_values(
    hyperparameters: Mapping[str, Any],
    osora: Mapping[str, Any],
    *,
    rows: int,
    seed: int,
    method: str = "supervised",
    point: Point | None = None,
) -> dict[str, Any]:
    """The fields of the spec of a job over `rows` rows at a point of the dial; where rates are to be swept, with the
    point's. Without one, at that of a job of before there were points.

    "auto" batches grow with the data, from 4 to 64 rows, and "auto" epochs are as many as give a small dataset about
    400 steps, from 2 to 10: vectors learn by steps, not by batch size.
    """
    batch_size = _number(hyperparameters.get("batch_size"), min(64, max(4, 2 ** round(math.log2(max(rows, 1) / 80)))))
    epochs = _number(hyperparameters.get("n_epochs"), min(10, max(2, round(400 * batch_size / max(rows, 1)))))
    own = {name: value for name, value in osora.items() if name not in _NOT_THE_SPECS}
    point = former_point(osora) if point is None else point
    return {
        **own,
        "rank": point.rank,
        "mix": point.mix,
        "seed": seed,
        "epochs": int(epochs),
        "batch_size": int(batch_size),
        "learning_rate": _number(osora.get("learning_rate"), scaled_rate(hyperparameters, point.learning_rate)),
        "sigma_rate": _number(osora.get("sigma_rate"), point.sigma_rate),
        "mix_rate": _number(osora.get("mix_rate"), point.mix_rate),
        "method": method,
        "beta": _number(hyperparameters.get("beta"), Spec.beta),
    }


def scaled_rate(hyperparameters: Mapping[str, Any], rate: float = DEFAULT_LEARNING_RATE) -> float:
    """A default learning rate, by the multiplier that was asked for; 0 where that is too small."""
    return rate * _number(hyperparameters.get("learning_rate_multiplier"), 1.0)


def sweep_specs(spec: S, osora: Mapping[str, Any], at_most: int) -> list[S]:
    """The members of a sweep around `spec`: every listed learning rate with every listed rate of s and of the mix, or
    the grid's.

    Of our grid, those over `at_most` are left out, from its end; what is listed is the tenant's, and stays whole.
    """
    rates, sigma_rates, mix_rates = (osora.get(name) for name in _RATES)
    if not spec.mix:
        mix_rates = spec.mix_rate
    if not isinstance(rates, list) and rates != "sweep" and any(isinstance(v, list) for v in (sigma_rates, mix_rates)):
        rates = [spec.learning_rate]
    most = None
    if not isinstance(rates, list):
        most = at_most
        rates = [float(f"{spec.learning_rate * factor:.3g}") for factor in _GRID_RATES]
        if mix_rates is None:
            mix_rates = _GRID_MIX_RATES
        elif sigma_rates is None and spec.train == "both":
            sigma_rates = _GRID_SIGMA_RATES
    over_s = sigma_rates if isinstance(sigma_rates, Sequence) else [spec.sigma_rate]
    over_mix = mix_rates if isinstance(mix_rates, Sequence) else [spec.mix_rate]
    specs = [
        replace(spec, learning_rate=rate, sigma_rate=of_s, mix_rate=of_mix)
        for of_mix in over_mix
        for of_s in over_s
        for rate in rates
    ]
    return specs[:most]


def dial_specs(specs: Sequence[S], osora: Mapping[str, Any], at_most: int) -> list[S]:
    """The members of a sweep that was asked for: of each point's spec what was listed, or the grid around it.

    A point without a mix has one member where others have one for every rate of the mix. Of our grid, those over
    `at_most` are left out, so that every point keeps as many as the others.
    """
    each = [sweep_specs(spec, osora, at_most) if _lists_rates(osora, spec.mix > 0) else [spec] for spec in specs]
    found = [spec for specs in zip_longest(*each) for spec in specs if spec is not None]
    return found[:at_most] if osora.get("learning_rate") == "sweep" else found


def members(
    make: Callable[[int], Sequence[S]], osora: Mapping[str, Any], at_most: int, *, training: int, validation: int
) -> tuple[list[S], int]:
    """The members of a sweep over so many rows, and how many of them they train on; `make` is the specs of so many
    rows, one of each of the job's points.

    Rows that are held back to choose by may change how many epochs or rows a batch "auto" is.
    """
    sweep = dial_specs if wants_sweep(osora) else _grid
    specs = sweep(make(training), osora, at_most)
    if len(specs) == 1:
        return specs, training
    left = training - held_back(training, validation)
    return sweep(make(left), osora, at_most), left


def _grid(specs: Sequence[S], osora: Mapping[str, Any], at_most: int) -> list[S]:
    return sweep_specs(specs[0], osora, at_most)


def wants_sweep(osora: Mapping[str, Any]) -> bool:
    """Whether the tenant asked for a sweep, by name or by listing values."""
    return isinstance(osora.get("preset"), list) or _lists_rates(osora)


def listed_members(osora: Mapping[str, Any]) -> int:
    """How many members of a sweep the listed values make: every one with every other, but for the rates of a mix where
    a listed preset has none."""
    lengths = {name: len(value) if isinstance(value := osora.get(name), list) else 1 for name in _RATES}
    with_mix = math.prod(lengths.values())
    presets = osora.get("preset")
    if not isinstance(presets, list):
        return with_mix
    mixes = [osora.get("mix", PRESETS[name].mix) for name in presets]
    return sum(with_mix if mix else with_mix // lengths["mix_rate"] for mix in mixes)


def _lists_rates(osora: Mapping[str, Any], has_mix: bool = True) -> bool:
    names = [name for name in _RATES if has_mix or name != "mix_rate"]
    return osora.get("learning_rate") == "sweep" or any(isinstance(osora.get(name), list) for name in names)


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


def resolved_hyperparameters(specs: Sequence[Spec], points: Sequence[Point] = ()) -> dict[str, Any]:
    """OpenAI's hyperparameters as numbers, as far as one spec, or all of a sweep's, decide them; of a job with these
    points."""
    first = specs[0]
    hyperparameters: dict[str, Any] = {"n_epochs": first.epochs, "batch_size": first.batch_size}
    if first.method == "dpo":
        hyperparameters["beta"] = first.beta
    if len(specs) == 1:
        own = (point.learning_rate for point in points if (point.rank, point.mix) == first.shape)
        hyperparameters["learning_rate_multiplier"] = first.learning_rate / next(own, DEFAULT_LEARNING_RATE)
    return hyperparameters


def _number(value: Any, default: float) -> float:
    return value if isinstance(value, int | float) else default
