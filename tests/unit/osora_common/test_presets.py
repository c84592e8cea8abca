"""The dial: what a request's preset, rank, mix and rates come to, and which members of a sweep that makes."""

from typing import Any, get_args

import pytest

from osora_common.hyperparameters import Spec, dial_specs, listed_members, resolved_hyperparameters, spec_values
from osora_common.presets import (
    DEFAULT_PRESET,
    PRESETS,
    Point,
    PresetName,
    Room,
    former_point,
    kept_point,
    points,
)
from osora_common.ranks import Ranks

ROOM = Room(Ranks(held=512, full=576))


def shapes(osora: dict[str, Any], room: Room = ROOM) -> list[tuple[str | None, int, int]]:
    return [(point.preset, point.rank, point.mix) for point in points(osora, room)]


def test_every_preset_is_in_the_table_from_small_to_good() -> None:
    assert tuple(PRESETS) == get_args(PresetName)
    assert [preset.mix for preset in PRESETS.values()] == sorted(preset.mix for preset in PRESETS.values())
    small = PRESETS["small"]
    assert (small.rank, small.mix) == (Spec.rank, Spec.mix)
    assert (small.learning_rate, small.sigma_rate, small.mix_rate) == (
        Spec.learning_rate, Spec.sigma_rate, Spec.mix_rate,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("osora", "expected"),
    [
        ({}, [(DEFAULT_PRESET, PRESETS[DEFAULT_PRESET].rank, PRESETS[DEFAULT_PRESET].mix)]),
        ({"preset": "small"}, [("small", 128, 0)]),
        ({"preset": "balanced"}, [("balanced", 128, 16)]),
        ({"preset": "quality"}, [("quality", 512, 64)]),  # of weights whose full rank is 576, the basis has 512
        ({"preset": "balanced", "rank": 64}, [("balanced", 64, 16)]),
        ({"preset": "balanced", "rank": 8}, [("balanced", 8, 8)]),  # nobody asked for a mix above the rank
        ({"preset": "balanced", "mix": 0}, [("balanced", 128, 0)]),
        ({"preset": "small", "mix": 32}, [("small", 128, 32)]),
        ({"rank": 16}, [(None, 16, 0)]),
        ({"mix": 24}, [(None, 128, 24)]),
        ({"rank": 16, "mix": 16}, [(None, 16, 16)]),
        ({"rank": 16, "mix": 17}, [(None, 16, 17)]),  # which is refused, and not bent
        ({"preset": ["small", "quality"]}, [("small", 128, 0), ("quality", 512, 64)]),
        ({"preset": ["small", "balanced"], "rank": 32}, [("small", 32, 0), ("balanced", 32, 16)]),
    ],
)
def test_what_is_named_wins_over_the_presets(
    osora: dict[str, Any], expected: list[tuple[str | None, int, int]]
) -> None:
    assert shapes(osora) == expected


def test_a_preset_is_bounded_by_the_basis_and_by_what_weights_have() -> None:
    assert shapes({"preset": [*PRESETS]}, Room(Ranks(held=8, full=8))) == [
        ("small", 8, 0), ("balanced", 8, 8), ("quality", 8, 8),
    ]  # fmt: skip
    assert shapes({"preset": "quality"}, Room(Ranks(held=512, full=192))) == [("quality", 192, 64)]
    assert shapes({"rank": 4}, Room(Ranks(held=8, full=8))) == [(None, 4, 0)]


def test_only_a_mix_that_was_left_to_us_gives_way_to_what_servers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora_common.presets.DEFAULT_PRESET", "balanced")
    narrow = Room(Ranks(held=512, full=576), mix=8)
    assert shapes({}, narrow) == [("balanced", 128, 8)]
    assert shapes({}) == [("balanced", 128, 16)]
    assert shapes({"preset": "balanced"}, narrow) == [("balanced", 128, 16)]
    assert shapes({"mix": 16}, narrow) == [(None, 128, 16)]


def test_rates_without_a_preset_are_those_of_the_next_smaller_mix() -> None:
    def rates(point: Point) -> tuple[float, float, float]:
        return point.learning_rate, point.sigma_rate, point.mix_rate

    def of(name: PresetName) -> tuple[float, float, float]:
        preset = PRESETS[name]
        return preset.learning_rate, preset.sigma_rate, preset.mix_rate

    for mix, name in (
        (0, "small"),
        (15, "small"),
        (16, "balanced"),
        (63, "balanced"),
        (64, "quality"),
        (128, "quality"),
    ):
        assert rates(points({"mix": mix}, ROOM)[0]) == rates(kept_point(128, mix)) == of(name)  # type: ignore[arg-type]
    assert rates(points({"preset": "small", "mix": 64}, ROOM)[0]) == of("small")


def test_a_job_of_before_reads_as_it_did() -> None:
    """Whatever the table says by now: its defaults were these."""
    assert former_point({}) == Point(None, 128, 0, 0.03, 2.0, 0.1)
    assert former_point({"rank": 16}).rank == 16
    values = spec_values({}, {"rank": 16, "learning_rate": 0.2}, rows=640, seed=1)
    assert (values["rank"], values["mix"], values["learning_rate"], values["sigma_rate"]) == (16, 0, 0.2, 2.0)


def test_a_point_outlives_its_table() -> None:
    """What was stored with a job is all that it needs."""
    (point,) = points({"preset": "balanced"}, ROOM)
    assert Point.from_dict(point.to_dict()) == point
    values = spec_values({"learning_rate_multiplier": 2}, {"preset": "balanced"}, rows=640, seed=1, point=point)
    spec = Spec(**values)
    assert (spec.rank, spec.mix, spec.learning_rate) == (point.rank, point.mix, 2 * point.learning_rate)
    # The multiplier is read back as it was asked for, whatever the default rate of the point is.
    assert resolved_hyperparameters([spec], [point])["learning_rate_multiplier"] == 2


def sweep(osora: dict[str, Any], at_most: int = 8) -> list[tuple[int, float, float, float]]:
    found = [Spec(**spec_values({}, osora, rows=100, seed=0, point=point)) for point in points(osora, ROOM)]
    return [(s.mix, s.learning_rate, s.sigma_rate, s.mix_rate) for s in dial_specs(found, osora, at_most)]


def test_presets_alone_are_members_with_their_own_rates() -> None:
    assert sweep({"preset": ["small", "balanced", "quality"]}) == [
        (preset.mix, preset.learning_rate, preset.sigma_rate, preset.mix_rate) for preset in PRESETS.values()
    ]


def test_listed_values_are_of_every_preset() -> None:
    members = sweep({"preset": ["small", "balanced"], "learning_rate": [0.1, 0.2], "sigma_rate": [1, 4]})
    assert sorted(members) == sorted(
        (mix, rate, over, 0.1) for mix in (0, 16) for rate in (0.1, 0.2) for over in (1, 4)
    )
    one = sweep({"preset": "balanced", "mix_rate": [0.05, 0.1, 0.3]})
    assert one == [(16, PRESETS["balanced"].learning_rate, 2.0, rate) for rate in (0.05, 0.1, 0.3)]


def test_rates_of_a_mix_are_of_those_that_have_one() -> None:
    osora: dict[str, Any] = {"preset": ["small", "balanced"], "mix_rate": [0.05, 0.3]}
    members = sweep(osora)
    assert [(mix, over) for mix, _, _, over in members] == [(0, 0.1), (16, 0.05), (16, 0.3)]
    assert listed_members(osora) == len(members)


def test_our_grid_leaves_every_preset_as_many_members() -> None:
    members = sweep({"preset": ["small", "balanced"], "learning_rate": "sweep"}, at_most=6)
    assert [mix for mix, *_ in members] == [0, 16, 0, 16, 0, 16]
    assert len(set(members)) == 6


@pytest.mark.parametrize(
    ("osora", "members"),
    [
        ({}, 1),
        ({"preset": "quality"}, 1),
        ({"preset": ["small", "balanced", "quality"]}, 3),
        ({"preset": ["small", "balanced"], "learning_rate": [0.1, 0.2, 0.3]}, 6),
        ({"preset": ["small", "balanced"], "mix": 4, "mix_rate": [0.1, 0.2]}, 4),
        ({"mix": 4, "mix_rate": [0.1, 0.2], "sigma_rate": [1, 2, 3]}, 6),
    ],
)
def test_members_are_counted_before_anything_else_is_known(osora: dict[str, Any], members: int) -> None:
    assert listed_members(osora) == members
