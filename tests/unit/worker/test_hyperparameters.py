"""What "auto" means, and that what a tenant chose is what is trained."""

from typing import Any

import pytest

from osora_common.hyperparameters import DEFAULT_LEARNING_RATE
from osora_core.errors import UserError
from osora_core.training import JobSpec
from worker.hyperparameters import training_spec

AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs"),
    [
        (1, 4, 10),  # the smallest batch, the most epochs
        (100, 4, 10),
        (640, 8, 5),
        (2_560, 32, 5),
        (5_120, 64, 5),
        (1_000_000, 64, 2),  # the largest batch, the fewest epochs
    ],
)
def test_auto_grows_with_the_data(rows: int, batch_size: int, epochs: int) -> None:
    spec = training_spec(AUTO, {}, rows=rows, seed=3)
    assert (spec.batch_size, spec.epochs) == (batch_size, epochs)
    assert spec.learning_rate == DEFAULT_LEARNING_RATE
    assert spec.seed == 3


def test_what_is_missing_is_auto() -> None:
    assert training_spec({}, {}, rows=640, seed=0) == training_spec(AUTO, {}, rows=640, seed=0)


@pytest.mark.parametrize("rows", [1, 79, 80, 81, 113, 114, 1_000, 12_345, 10**6])
def test_auto_stays_within_its_bounds(rows: int) -> None:
    spec = training_spec({}, {}, rows=rows, seed=0)
    assert 4 <= spec.batch_size <= 64
    assert 2 <= spec.epochs <= 10


def test_auto_epochs_follow_a_chosen_batch() -> None:
    spec = training_spec({"batch_size": 16}, {}, rows=640, seed=0)
    assert (spec.batch_size, spec.epochs) == (16, 10)


def test_choices_are_kept() -> None:
    knobs: dict[str, Any] = {
        "rank": 16,
        "target_modules": ["q_proj"],
        "train": "s",
        "learning_rate": 0.2,
        "sigma_rate": 4,
    }
    spec = training_spec({"n_epochs": 3, "batch_size": 5}, knobs, rows=640, seed=7)
    assert spec == JobSpec(
        seed=7, epochs=3, batch_size=5, rank=16, target_modules=("q_proj",), train="s", learning_rate=0.2, sigma_rate=4
    )


def test_a_multiplier_scales_the_default_rate() -> None:
    spec = training_spec({"learning_rate_multiplier": 0.5}, {"learning_rate": "auto"}, rows=10, seed=0)
    assert spec.learning_rate == DEFAULT_LEARNING_RATE / 2


def test_max_length_is_the_renderers_business() -> None:
    assert training_spec({}, {"max_length": 64}, rows=10, seed=0) == training_spec({}, {}, rows=10, seed=0)


def test_priority_is_the_queues_business() -> None:
    assert training_spec({}, {"priority": "high"}, rows=10, seed=1) == training_spec({}, {}, rows=10, seed=1)


def test_an_unknown_knob_is_the_users_fault() -> None:
    with pytest.raises(UserError, match="colour") as refused:
        training_spec({}, {"colour": "red"}, rows=10, seed=0)
    assert refused.value.param == "colour"


def test_a_multiplier_that_leaves_no_rate_is_told_to_be_too_low() -> None:
    with pytest.raises(UserError, match="learning_rate_multiplier is 4") as refused:
        training_spec({**AUTO, "learning_rate_multiplier": 5e-324}, {}, rows=8, seed=0)
    assert refused.value.param == "hyperparameters.learning_rate_multiplier"
    assert "higher" in str(refused.value.next_action)
    assert training_spec({**AUTO, "learning_rate_multiplier": 1e-300}, {}, rows=8, seed=0).learning_rate > 0
