"""Points of the dial, in words: a rank, a mix, and how large an adapter is there."""

from collections.abc import Mapping, Sequence
from typing import Any

from osora.cli.output import human_bytes, print_table


def point_words(point: Mapping[str, Any]) -> str:
    """`balanced: rank 128, mix 16; 43,520 values`, with what is known of it."""
    name = f"{point['preset']}: " if point.get("preset") else ""
    mix = f", mix {point['mix']}" if point.get("mix") else ""
    values = f"; {point['parameters']:,} values" if point.get("parameters") is not None else ""
    return f"{name}rank {point.get('rank')}{mix}{values}"


def point_fields(points: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """For `print_fields`: a line for each point, which are several in a sweep over presets."""
    if len(points) == 1:
        return {"trains": point_words(points[0])}
    return {f"trains {number}": point_words(point) for number, point in enumerate(points, 1)}


def show_presets(bases: Sequence[Mapping[str, Any]]) -> None:
    """What each preset is on each base; nothing of a service that does not say."""
    rows = [
        (
            base["name"],
            preset["preset"],
            preset["rank"],
            preset["mix"] or "",
            "" if preset.get("parameters") is None else f"{preset['parameters']:,}",
            human_bytes(preset.get("adapter_bytes")),
            "" if preset.get("available", True) else "no room for its mix",
        )
        for base in bases
        for preset in base.get("presets") or []
    ]
    if rows:
        print_table(("base", "preset", "rank", "mix", "values", "adapter", ""), rows, "")
