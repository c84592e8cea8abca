"""A job on preferences, from its rows to what its tenant sees of it."""

import io
import json
from collections.abc import Callable

import pytest

from registry import files
from registry.context import Registry
from registry.errors import InvalidRequest
from registry.models import Job, JobEvent
from registry.tenants import Principal


@pytest.fixture
def preferences(registry: Registry, principal: Principal) -> str:
    rows = (
        {
            "input": {"messages": [{"role": "user", "content": f"help {i}"}]},
            "preferred_output": [{"role": "assistant", "content": "order"}],
            "non_preferred_output": [{"role": "assistant", "content": "refund"}],
        }
        for i in range(12)
    )
    data = io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())
    return files.ingest(registry, principal, data, "rows.jsonl", "fine-tune").id


def test_a_job_on_preferences_tells_its_rewards(
    train: Callable[..., Job], events: Callable[[Job], list[JobEvent]], preferences: str
) -> None:
    job = train(
        epochs=4, method="dpo", training_file=preferences, validation_file=preferences, osora={"learning_rate": 0.02}
    )
    assert job.status == "succeeded", job.error
    assert job.plan is not None
    assert job.plan["hyperparameters"]["beta"] == 0.1
    metrics = [event.data for event in events(job) if event.type == "metrics" and event.data]
    last = next(data for data in reversed(metrics) if "valid_reward_margin" in data)
    assert last["valid_reward_margin"] > 0
    assert last["valid_reward_accuracy"] == 1
    assert last["valid_loss"] < 0.6931
    assert any("train_reward_margin" in data for data in metrics)


@pytest.mark.parametrize(("method", "fitting"), [("dpo", "supervised"), ("supervised", "dpo")])
def test_rows_that_the_method_cannot_learn_from_are_refused_at_once(
    train: Callable[..., Job], upload: Callable[..., str], preferences: str, method: str, fitting: str
) -> None:
    rows = preferences if method == "supervised" else upload("order")
    with pytest.raises(InvalidRequest, match="which the method") as refused:
        train(method=method, training_file=rows)
    assert refused.value.param == "training_file"
    assert f"use the method {fitting!r}" in str(refused.value.next_action)
