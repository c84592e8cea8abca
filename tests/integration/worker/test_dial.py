"""Points of the dial through a worker: what is published, and what checkpoints hold, has the shape that was trained."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

from osora_core.adapter import Adapter as TrainedAdapter
from registry import adapters, jobs
from registry.context import Registry
from registry.models import Adapter, File, Job, JobEvent
from registry.tenants import Principal

Train = Callable[..., Job]
Upload = Callable[..., str]
Events = Callable[[Job], list[JobEvent]]


def published(registry: Registry, principal: Principal, job: Job) -> tuple[Adapter, TrainedAdapter]:
    assert job.status == "succeeded", job.error
    with registry.reading() as session:
        row = adapters.get(session, principal, job.adapter_id or "")
    return row, TrainedAdapter.from_zip(registry.store.get(row.object_key), row.sha256)


def test_a_preset_is_trained_and_published(
    train: Train, upload: Upload, registry: Registry, principal: Principal, events: Events
) -> None:
    job = train(osora={"preset": "balanced", "mix": 4}, training_file=upload("order 7"))
    row, adapter = published(registry, principal, job)
    assert (row.rank, row.mix) == (adapter.rank, adapter.mix_size) == (8, 4)
    parts = (adapter.sigma, adapter.delta, adapter.mix)
    assert row.parameters == sum(values.numel() for part in parts for values in part.values())
    assert any(mix.abs().sum() > 0 for mix in adapter.mix.values())
    assert job.plan is not None
    assert job.plan["hyperparameters"]["learning_rate_multiplier"] == 1  # of the preset's own rate
    assert any("rank 8, a mix of size 4, learning rate 0.02" in event.message for event in events(job))


@pytest.mark.parametrize("presets", [["small", "balanced"], ["balanced", "small"]])
def test_a_sweep_over_presets_publishes_the_best(
    train: Train, upload: Upload, registry: Registry, principal: Principal, events: Events, presets: list[str]
) -> None:
    """Checkpoints are of the best so far: each has the shape of its own member, not of the first."""
    wanted: dict[str, Any] = {"preset": presets, "mix_rate": 0.2}
    job = train(osora=wanted, epochs=4, training_file=upload("order 7"), validation_file=upload("order 7", 3))
    row, adapter = published(registry, principal, job)
    assert job.plan is not None
    (spec,) = job.plan["specs"]
    assert (row.rank, row.mix) == (adapter.rank, adapter.mix_size) == (spec["rank"], spec["mix"])
    said = [event.message for event in events(job)]
    assert any("a sweep of 2, of which" in words and "rank 8, a mix of size 8 at" in words for words in said)
    shape = f"rank 8{', a mix of size 8' if spec['mix'] else ''} at learning rate"
    assert any(f"The sweep chose {shape}" in words for words in said)
    with registry.reading() as session:
        kept = jobs.checkpoints(session, principal, job.id).data
    assert kept
    for checkpoint in kept:
        stored = TrainedAdapter.from_zip(registry.store.get(checkpoint.adapter_key), checkpoint.adapter_sha256)
        assert (checkpoint.rank, checkpoint.mix) == (stored.rank, stored.mix_size)
    with registry.reading() as session:
        keys = [session.get_one(File, file_id).object_key for file_id in job.result_file_ids]
    curves = list(csv.DictReader(io.StringIO(registry.store.get(keys[1]).decode())))
    assert {(line["rank"], line["mix"]) for line in curves} == {("8", "0"), ("8", "8")}


def test_a_job_goes_on_with_the_mix_of_its_adapter_or_a_larger_one(
    train: Train, upload: Upload, registry: Registry, principal: Principal
) -> None:
    file = upload("order 7")
    first = train(osora={"mix": 3}, training_file=file)
    for osora, mix in (({}, 3), ({"mix": 5}, 5)):
        job = train(osora=osora, training_file=file, base=None, from_adapter=first.adapter_id)
        row, adapter = published(registry, principal, job)
        assert (row.mix, adapter.mix_size) == (mix, mix)
