"""The points of the dial that a job trains at: settled when it is accepted, and kept with it."""

from collections.abc import Mapping
from typing import Any

from osora_common.presets import Point, Room, former_point, kept_point, points
from registry.errors import InvalidRequest
from registry.models import Job
from registry.references import AdapterRef


def settle(osora: Mapping[str, Any], room: Room, held: AdapterRef | None) -> list[Point]:
    """Those that a request means, within what there is room for and from what it begins with, if that is an adapter.

    Raises `InvalidRequest` for a mix above the rank or above what the inference
    servers hold, for a rate of a mix that there is not, and for presets of a list that come to the same here.
    """
    found = points(osora, room) if held is None else [kept_point(held.rank, osora.get("mix", held.mix))]
    for point in found:
        _check_mix(point, osora, room.mix)
    if "mix_rate" in osora and not any(point.mix for point in found):
        raise InvalidRequest(
            "`osora.mix_rate` is how fast a mix learns, and the job has none",
            param="osora.mix_rate",
            code="invalid_value",
            next_action="give `osora.mix` or a preset that has one, or leave out `osora.mix_rate`",
        )
    _check_distinct(found)
    return found


def of_job(job: Job) -> tuple[Point, ...]:
    """Those that it was accepted with."""
    if job.points is None:
        return (former_point(job.osora),)
    return tuple(map(Point.from_dict, job.points))


def _check_mix(point: Point, osora: Mapping[str, Any], largest: int | None) -> None:
    if point.mix > point.rank:
        raise InvalidRequest(
            f"osora.mix is {point.mix}, over the rank {point.rank}",
            param="osora.mix",
            code="invalid_value",
            next_action=f"use 0 to {point.rank}" + ("" if "rank" in osora else ", or a higher `osora.rank`"),
        )
    if largest is None or point.mix <= largest:
        return
    if "mix" in osora:
        said, param = f"osora.mix is {point.mix}", "osora.mix"
        next_action = f"use 0 to {largest}" if largest else "leave it out"
    elif "preset" in osora:
        said, param = f"the preset {point.preset!r} has a mix of {point.mix}", "osora.preset"
        next_action = f"choose another preset, or give `osora.mix`, 0 to {largest}"
    else:
        said, param = f"the adapter that the job begins with has a mix of {point.mix}", "osora.from_adapter"
        next_action = "begin with another adapter, or with the base"
    held = f"mixes of at most {largest}" if largest else "none"
    raise InvalidRequest(
        f"{said}, and the inference servers hold {held}: nobody could call the adapter",
        param=param,
        code="invalid_value",
        next_action=f"{next_action}; or have whoever runs the service make room (OSORA_INFERENCE_MIX, "
        "OSORA_INFERENCE_MIXES)",
    )


def _check_distinct(found: list[Point]) -> None:
    seen: dict[tuple[int, int], Point] = {}
    for point in found:
        same = seen.setdefault((point.rank, point.mix), point)
        if same is not point:
            raise InvalidRequest(
                f"`osora.preset` lists {same.preset!r} and {point.preset!r}, which are the same here: rank "
                f"{point.rank}, mix {point.mix}",
                param="osora.preset",
                code="invalid_value",
                next_action="leave out one of them",
            )
