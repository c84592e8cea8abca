"""What becomes of a job that has learned nothing, or has run away: what its tenant is told, and what is published."""

from collections.abc import Callable

import pytest

from registry import adapters
from registry.context import Registry
from registry.models import Job, JobEvent
from registry.tenants import Principal

Train = Callable[..., Job]
Upload = Callable[..., str]
Events = Callable[[Job], list[JobEvent]]


@pytest.mark.parametrize("validated", [True, False])
def test_a_job_that_diverges_in_its_only_step_fails_with_advice_and_leaves_no_adapter(
    train: Train, upload: Upload, events: Events, validated: bool
) -> None:
    files = {"training_file": upload("order")} | ({"validation_file": upload("order", 3)} if validated else {})
    one_step = {"n_epochs": 1, "batch_size": 12}
    job = train(**files, hyperparameters=one_step, osora={"learning_rate": 1e30})
    assert (job.status, job.adapter_id) == ("failed", None)
    assert job.error is not None
    assert (job.error["code"], job.error["fault"], job.error["param"]) == (
        "non_finite_loss", "user", "osora.learning_rate",
    )  # fmt: skip
    assert job.error["next_action"] == "submit the job again with a lower learning rate"
    assert not any("lowest" in event.message for event in events(job))


def test_where_no_state_is_better_the_start_is_published_with_a_warning(
    train: Train, upload: Upload, events: Events, registry: Registry, principal: Principal
) -> None:
    """It learns one answer and is measured on another."""
    osora = {"learning_rate": 3.0}
    job = train(2, training_file=upload("order"), validation_file=upload("please wait", 3), osora=osora)
    assert job.status == "succeeded", job.error
    (warning,) = [event for event in events(job) if event.message.startswith("No state was better than the start")]
    assert warning.level == "warn"
    assert "answers as the bare base does" in warning.message
    with registry.reading() as session:
        assert adapters.get(session, principal, str(job.adapter_id)).step == 0


def test_a_last_state_that_is_worse_than_the_start_is_published_with_a_warning(
    train: Train, upload: Upload, events: Events
) -> None:
    osora = {"learning_rate": 3.0, "keep": "last"}
    job = train(2, training_file=upload("order"), validation_file=upload("please wait", 3), osora=osora)
    assert job.status == "succeeded", job.error
    (warning,) = [event for event in events(job) if event.message.startswith("The last state is worse than the start")]
    assert warning.level == "warn"
