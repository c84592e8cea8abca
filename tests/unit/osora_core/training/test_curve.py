"""Whether a curve says that training has made things worse, where nothing else was measured."""

from random import Random

import pytest

from osora_core.training import Curve


def noisy(losses: list[float], noise: float, seed: int) -> Curve:
    random = Random(seed)
    return Curve([loss + random.gauss(0, noise) for loss in losses])


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_has_risen_above_the_noise_of_batches_is_a_rise(seed: int) -> None:
    rising = noisy([7.76 + 2.57 * step / 99 for step in range(100)], 0.5, seed)
    found = rising.training_rise(steps_per_epoch=20)
    assert found == pytest.approx((7.9, 10.2), abs=0.5)
    jumped = noisy([2.7] * 10 + [9.0] * 90, 0.5, seed)
    assert jumped.training_rise(steps_per_epoch=20) is not None


@pytest.mark.parametrize("seed", range(5))
def test_one_that_falls_or_stays_is_none(seed: int) -> None:
    assert noisy([2.7 * 0.97**step for step in range(100)], 0.5, seed).training_rise(20) is None
    # It rises and has come down again.
    assert noisy([2.7] * 20 + [9.0] * 20 + [1.0] * 60, 0.5, seed).training_rise(20) is None


def test_batches_that_differ_by_chance_are_seldom_taken_for_a_rise() -> None:
    """Of a job that learns nothing: two standard errors are passed upwards once in 44."""
    found = [noisy([2.7] * 200, 0.5, seed).training_rise(20) for seed in range(400)]
    assert sum(rise is not None for rise in found) < 400 * 3 / 44


def test_where_each_step_reads_all_rows_there_is_no_chance() -> None:
    assert Curve([1.0, 1.2, 1.1]).training_rise(steps_per_epoch=1) == (1.0, 1.1)
    assert Curve([1.0, 1.2, 1.0]).training_rise(steps_per_epoch=1) is None
    assert Curve([1.0, 1.1]).training_rise(steps_per_epoch=2) is None


@pytest.mark.parametrize("losses", [[], [1.0]])
def test_a_single_step_has_nothing_to_be_compared_with(losses: list[float]) -> None:
    assert Curve(losses).training_rise(steps_per_epoch=1) is None
