"""The dial between the smallest adapter and the best: named points of rank, mix and rates.

The table here is the only one: who measures better values (`benchmarks.quality`) changes it, and nothing else. A job
keeps the points that it was accepted with, so that no change of the table reaches it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast

from osora_common.ranks import ANY_RANK, Ranks

PresetName = Literal["small", "balanced", "quality"]


@dataclass(frozen=True)
class Preset:
    """A point of the dial, whatever the base. The rates are what a job has there that names none: see
    `osora_common.hyperparameters.Spec`."""

    rank: int | None
    """None: each weight's own full rank, as far as the basis goes."""
    mix: int
    learning_rate: float
    sigma_rate: float
    mix_rate: float


PRESETS: Mapping[PresetName, Preset] = {
    "small": Preset(rank=128, mix=0, learning_rate=0.03, sigma_rate=2.0, mix_rate=0.1),
    "balanced": Preset(rank=128, mix=16, learning_rate=0.02, sigma_rate=2.0, mix_rate=0.1),
    "quality": Preset(rank=None, mix=64, learning_rate=0.01, sigma_rate=2.0, mix_rate=0.1),
}
DEFAULT_PRESET: PresetName = "small"
"""Of a job that names neither a preset nor a rank nor a mix."""


@dataclass(frozen=True)
class Room:
    """What an installation has room for on one base: ranks of an adapter, and the largest mix, None where that is not
    known."""

    ranks: Ranks = ANY_RANK
    mix: int | None = None


@dataclass(frozen=True)
class Point:
    """A point of the dial on one base: what a job, or some members of its sweep, train.

    `preset`: its name, if it is one's. The rates are defaults still: what the job itself says of them wins.
    """

    preset: PresetName | None
    rank: int
    mix: int
    learning_rate: float
    sigma_rate: float
    mix_rate: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**values)


def points(osora: Mapping[str, Any], room: Room) -> list[Point]:
    """The points that a request's `osora` object means: one, or one for each preset that it lists.

    Explicit values win over a preset's. What a preset has is bounded by the rank; a mix that was left to us, also by
    what there is room for. What was asked for is not looked at: that is for whoever accepts the job.
    """
    named = osora.get("preset")
    if is_default(osora):
        return [_point(DEFAULT_PRESET, osora, room, most_mix=room.mix)]
    if not isinstance(named, list):
        return [_point(named, osora, room)]
    return [_point(name, osora, room) for name in named]


def is_default(osora: Mapping[str, Any]) -> bool:
    """Whether a request leaves its point to us."""
    return all(name not in osora for name in ("preset", "rank", "mix"))


def _point(name: PresetName | None, osora: Mapping[str, Any], room: Room, most_mix: int | None = None) -> Point:
    preset = PRESETS["small" if name is None else name]
    ranks = room.ranks
    wished = ranks.at_most("full" if preset.rank is None else preset.rank)
    rank = ranks.resolved(osora["rank"]) if "rank" in osora else wished
    mix = cast(int, osora.get("mix", min(preset.mix, rank, preset.mix if most_mix is None else most_mix)))
    return _with_rates(name, rank, mix, _nearest(mix) if name is None else preset)


def kept_point(rank: int, mix: int) -> Point:
    """That of a job which goes on from an adapter, with its rank and at least its mix."""
    return _with_rates(None, rank, mix, _nearest(mix))


def former_point(osora: Mapping[str, Any]) -> Point:
    """That of a job of before there were presets."""
    return Point(None, cast(int, osora.get("rank", 128)), 0, learning_rate=0.03, sigma_rate=2.0, mix_rate=0.1)


def _with_rates(name: PresetName | None, rank: int, mix: int, preset: Preset) -> Point:
    return Point(name, rank, mix, preset.learning_rate, preset.sigma_rate, preset.mix_rate)


def _nearest(mix: int) -> Preset:
    """The preset whose rates suit a mix that was given as a number: the one with the largest mix up to it."""
    return max((preset for preset in PRESETS.values() if preset.mix <= mix), key=lambda preset: preset.mix)
