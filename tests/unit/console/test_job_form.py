"""What is chosen in the form, as a request."""

from typing import Any

from console.job_form import Choices, presets_of


def test_what_is_left_to_the_service_is_not_in_the_request() -> None:
    assert Choices().fields() == {}
    assert not Choices(file_id="file-1").is_ready
    assert Choices(file_id="file-1", base="osora-tiny").is_ready


def test_what_was_chosen_is() -> None:
    choices = Choices(
        suffix=" cities ", epochs=3, rate_kind="number", rate=0.01, overlong="drop", validation_share=0.1,
        sample_prompts=["Hi"], preset="small", validation_file="file-2",
    )  # fmt: skip
    assert choices.fields() == {
        "suffix": "cities",
        "validation_file": "file-2",
        "hyperparameters": {"n_epochs": 3},
        "osora": {
            "preset": "small",
            "learning_rate": 0.01,
            "overlong": "drop",
            "validation_share": 0.1,
            "sample_prompts": ["Hi"],
        },
    }
    assert Choices(rate_kind="sweep", rate=0.5).fields() == {"osora": {"learning_rate": "sweep"}}


def test_preferences_are_trained_as_preferences() -> None:
    assert Choices(format="preference", epochs=2).fields() == {
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2}}}
    }


def test_presets_are_those_that_the_base_has_room_for() -> None:
    base: Any = {
        "name": "b",
        "presets": [
            {"preset": "small", "rank": 128, "mix": 0, "adapter_bytes": 106_496, "available": True},
            {"preset": "quality", "rank": 256, "mix": 64, "adapter_bytes": None, "available": False},
        ],
    }
    assert presets_of(base) == {"small": "small (rank 128, 104 KiB)"}
    assert presets_of({"name": "b"}) == presets_of(None) == {}
