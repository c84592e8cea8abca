"""Points of the dial, as clients see them."""

from typing import Self

from pydantic import BaseModel

from osora_common.presets import PRESETS, Point, PresetName, points
from registry.bases import Offer, room
from registry.settings import Settings


class PointOut(BaseModel):
    """A point of the dial: what a job trains, or some members of its sweep."""

    preset: PresetName | None
    """Its name; null where rank or mix were given without one."""
    rank: int
    mix: int
    """Size of the matrix C; 0: there is none."""

    @classmethod
    def of(cls, point: Point) -> Self:
        """What was settled when the job was accepted."""
        return cls(preset=point.preset, rank=point.rank, mix=point.mix)


class SizedPointOut(PointOut):
    """The same, with the size of its adapter; null where that is not known."""

    parameters: int | None
    adapter_bytes: int | None
    """Of its values; the adapter's file has some thousand more, of names and settings."""


def sized(point: Point, parameters: int | None) -> SizedPointOut:
    """A point at which an adapter has so many values, in float32."""
    size = None if parameters is None else 4 * parameters
    return SizedPointOut(**dict(PointOut.of(point)), parameters=parameters, adapter_bytes=size)


class PresetOut(SizedPointOut):
    """A preset on a base: with the rates of a job that names none, and whether the installation has room for it."""

    learning_rate: float
    sigma_rate: float
    mix_rate: float
    available: bool


def presets(offer: Offer, settings: Settings) -> list[PresetOut]:
    """All of them, on a base of which this is known."""
    return [
        PresetOut(
            **dict(sized(point, offer.parameters(point.rank, None, point.mix))),
            learning_rate=point.learning_rate,
            sigma_rate=point.sigma_rate,
            mix_rate=point.mix_rate,
            available=offer.largest_mix is None or point.mix <= offer.largest_mix,
        )
        for point in points({"preset": [*PRESETS]}, room(offer, None, settings))
    ]
