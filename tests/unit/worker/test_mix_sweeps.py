"""Which specs a sweep of jobs with a mix has."""

from dataclasses import replace
from typing import Any

import pytest

from osora_common.hyperparameters import spec_values, sweep_specs, wants_sweep
from osora_common.presets import Room, points
from osora_core.training import JobSpec

DEFAULT = JobSpec(rank=8)


@pytest.mark.parametrize(
    ("osora", "expected"),
    [
        ({"learning_rate": "sweep"}, [(r, 2, m) for m in (0.1, 0.3) for r in (0.03, 0.09, 0.01)]),
        ({"learning_rate": "sweep", "mix_rate": 0.1}, [(r, s, 0.1) for s in (2, 0.5) for r in (0.03, 0.09, 0.01)]),
        ({"mix_rate": [0.1, 0.2]}, [(0.03, 2, 0.1), (0.03, 2, 0.2)]),
        ({"learning_rate": [0.01], "sigma_rate": [1, 3], "mix_rate": [0.1, 0.2]},
         [(0.01, s, m) for m in (0.1, 0.2) for s in (1, 3)]),
        ({"learning_rate": [0.01, 0.02]}, [(0.01, 2, 0.1), (0.02, 2, 0.1)]),
    ],
)  # fmt: skip
def test_with_a_mix_a_sweep_ranges_over_its_rate_too(
    osora: dict[str, Any], expected: list[tuple[float, float, float]]
) -> None:
    assert wants_sweep(osora)
    specs = sweep_specs(replace(DEFAULT, mix=4), osora, at_most=8)
    assert [(spec.learning_rate, spec.sigma_rate, pytest.approx(spec.mix_rate)) for spec in specs] == expected
    assert {spec.mix for spec in specs} == {4}


def test_a_spec_takes_its_mix_from_the_request() -> None:
    osora = {"mix": 8, "mix_rate": 0.2, "rank": 16}
    (point,) = points(osora, Room())
    spec = JobSpec.from_dict(spec_values({}, osora, rows=10, seed=1, point=point))
    assert (spec.mix, spec.mix_rate, spec.rates().keys()) == (8, 0.2, {"learning_rate", "sigma_rate", "mix_rate"})
    plain = JobSpec.from_dict(spec_values({}, {"mix_rate": [0.2, 0.3]}, rows=10, seed=1))
    assert (plain.mix, plain.mix_rate, plain.rates().keys()) == (0, 0.1, {"learning_rate", "sigma_rate"})
