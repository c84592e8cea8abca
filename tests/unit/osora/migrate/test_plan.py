from typing import Any

import pytest

from osora.migrate.plan import NotImportedError, plan

JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "status": "succeeded",
    "model": "gpt-4o-mini-2024-07-18",
    "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:acme::abc",
    "training_file": "file-1",
    "hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.8},
    "seed": 42,
}


def differing(job: dict[str, Any], **options: Any) -> dict[str, tuple[str, str]]:
    return {one.field: (one.there, one.here) for one in plan(job, "tiny", **options).differences}


def test_what_means_the_same_here_is_kept_and_the_rest_is_shown() -> None:
    planned = plan(JOB, "tiny")
    assert planned.body == {
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 4}}},
        "seed": 42,
        "metadata": {"imported_from": "ftjob-1", "imported_model": JOB["fine_tuned_model"]},
    }
    assert differing(JOB) == {"model": (JOB["model"], "tiny"), "learning_rate_multiplier": ("1.8", "auto")}


def test_hyperparameters_may_all_be_left_to_the_service() -> None:
    assert plan(JOB, "tiny", False).body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {}}}
    assert differing(JOB, keep_hyperparameters=False).keys() >= {"n_epochs", "batch_size"}


def test_those_of_a_method_stand_in_its_own_place() -> None:
    own = {"n_epochs": "auto", "batch_size": 2, "beta": 0.2, "learning_rate_multiplier": 0.1}
    job = {**JOB, "hyperparameters": {}, "method": {"type": "dpo", "dpo": {"hyperparameters": own}}}
    assert plan(job, "tiny").body["method"] == {
        "type": "dpo",
        "dpo": {"hyperparameters": {"batch_size": 2, "beta": 0.2}},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_epochs", 51), ("n_epochs", 0), ("n_epochs", 1.5), ("batch_size", 257), ("batch_size", True), ("new_one", 3)],
)
def test_a_value_that_is_none_here_is_left_to_the_service_and_shown(name: str, value: Any) -> None:
    job = {**JOB, "hyperparameters": {name: value}}
    assert plan(job, "tiny").body["method"]["supervised"]["hyperparameters"] == {}
    assert differing(job)[name] == (str(value), "auto")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"user_provided_suffix": "triage"}, "triage"),
        ({"user_provided_suffix": "my triage/2"}, "my-triage-2"),
        ({"user_provided_suffix": "…"}, None),
        ({"fine_tuned_model": "ft:gpt-4o:acme:cities:abc"}, "cities"),
        ({"fine_tuned_model": "ft:gpt-4o:acme::abc"}, None),
    ],
)
def test_a_suffix_that_no_name_here_can_have_is_changed_and_shown(given: dict[str, Any], made: str | None) -> None:
    assert plan(JOB | given, "tiny").body.get("suffix") == made
    changed = given.get("user_provided_suffix", made) != made
    assert ("suffix" in differing(JOB | given)) is changed


def test_a_seed_is_one_of_ours_or_a_new_one() -> None:
    assert "seed" not in plan({**JOB, "seed": 2**31}, "tiny").body
    assert differing({**JOB, "seed": 2**31})["seed"] == (str(2**31), "a new one")


def test_metadata_have_room_for_where_the_job_comes_from() -> None:
    many = {f"k{number}": "v" for number in range(16)}
    job = {**JOB, "metadata": many | {"imported_from": "ftjob-0"}, "integrations": [{"type": "wandb"}]}
    planned = plan(job, "tiny")
    assert len(planned.body["metadata"]) == 16
    assert planned.body["metadata"]["imported_from"] == "ftjob-1"
    assert {"metadata k14", "metadata k15", "integrations"} <= differing(job).keys()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "failed"}, "failed there"),
        ({"status": "cancelled"}, "cancelled there"),
        ({"status": "running"}, "running there"),
        ({"method": {"type": "reinforcement"}}, "reinforcement"),
    ],
)
def test_a_job_without_its_like_here_is_left(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotImportedError, match=reason):
        plan(JOB | fields, "tiny")


def test_a_job_may_go_on_from_another() -> None:
    assert plan(JOB, "tiny").continues is None
    assert plan({**JOB, "model": "ft:gpt-4o:acme::x"}, "tiny").continues == "ft:gpt-4o:acme::x"
