"""Which checkpoints a job keeps, and how each is called."""

import pytest
from sqlalchemy import select

from registry import jobs, references, retention
from registry.context import Registry
from registry.errors import Conflict, NotFound
from registry.jobs import CheckpointRef
from registry.models import Checkpoint, Job
from registry.references import AdapterRef, refer
from registry.tenants import Principal
from tests.support.jobs import claim, expire_lease, record_checkpoint, submit


def kept(registry: Registry, job: Job) -> dict[int, tuple[str | None, str]]:
    """By step, the keys of what it can be resumed from and of what can be called."""
    with registry.reading() as session:
        rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step))
        return {row.step: (row.object_key, row.adapter_key) for row in rows}


def resolve(registry: Registry, principal: Principal, name: str) -> AdapterRef:
    with registry.reading() as session:
        return refer(session, principal, name)


def test_the_newest_two_and_every_epochs_last_are_kept(registry: Registry, principal: Principal) -> None:
    """An epoch of ten steps; only the newest two keep the state to resume from."""
    job = submit(registry, principal)
    attempt = claim(registry, job)
    unnamed = []
    for step in (5, 10, 15, 20, 25, 28):
        with registry.transaction() as session:
            unnamed += record_checkpoint(session, attempt, step, ends_epoch=step % 10 == 0)
    folder = f"checkpoints/{job.id}/1"
    states = [None, None, f"{folder}/25.safetensors", f"{folder}/28.safetensors"]
    adapters = [f"{folder}/{step}.zip" for step in (10, 20, 25, 28)]
    assert kept(registry, job) == dict(zip((10, 20, 25, 28), zip(states, adapters, strict=True), strict=True))
    gone = {f"{folder}/{step}.safetensors" for step in (5, 10, 15, 20)} | {f"{folder}/{step}.zip" for step in (5, 15)}
    assert sorted(unnamed) == sorted(gone)
    expire_lease(registry, job)
    assert claim(registry, job).checkpoints == tuple(
        CheckpointRef(step, f"{folder}/{step}.safetensors", "b" * 64) for step in (28, 25)
    )


def test_a_checkpoint_by_its_id_and_by_its_name(registry: Registry, principal: Principal, stranger: Principal) -> None:
    job = submit(registry, principal, suffix="bot")
    attempt = claim(registry, job)
    with registry.transaction() as session:
        record_checkpoint(session, attempt, 10)
        (event,) = jobs.events(session, principal, job.id, limit=1, order="desc").data
    name = f"ft:osora-tiny:default:bot:{job.id[-16:]}:ckpt-step-10"
    assert event.data == {"step": 10, "model": name}
    ref = resolve(registry, principal, name)
    assert ref == resolve(registry, principal, ref.id)
    assert (ref.name, ref.job_id, ref.step, ref.base) == (name, job.id, 10, "osora-tiny")
    assert (ref.object_key, ref.sha256, ref.bytes) == (f"checkpoints/{job.id}/1/10.zip", "a" * 64, 1234)
    for other in (name.replace("bot", "dog"), name.replace("default", "stranger"), f"{ref.id}0"):
        with pytest.raises(NotFound):
            resolve(registry, principal, other)
    with pytest.raises(NotFound) as refused:
        resolve(registry, stranger, name)
    assert "10," not in refused.value.message
    assert "kept" not in refused.value.message


def test_one_that_is_gone_names_those_that_are_there(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        for step in (1, 2, 3):
            record_checkpoint(session, attempt, step)
    name = f"ft:osora-tiny:default::{job.id[-16:]}:ckpt-step-"
    for gone in (f"{name}1", f"ftckpt_{job.id[-16:]}_1"):
        with pytest.raises(NotFound) as refused:
            resolve(registry, principal, gone)
        assert refused.value.code == "checkpoint_not_found"
        assert refused.value.param == "adapter_id"
        assert gone in refused.value.message
        assert "those of step 2, 3" in refused.value.message
        assert refused.value.next_action == f"call '{name}3'"
    with pytest.raises(NotFound, match=r"no checkpoint 'ftckpt_0123456789abcdef_1'$"):
        resolve(registry, principal, "ftckpt_0123456789abcdef_1")


def test_one_of_a_job_that_has_ended_can_be_deleted(
    registry: Registry, principal: Principal, stranger: Principal
) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        for step in (1, 2):
            record_checkpoint(session, attempt, step)
    for found in kept(registry, job).values():
        for key in filter(None, found):
            registry.store.put(key, b"x")
    one, two = (f"ftckpt_{job.id[-16:]}_{step}" for step in (1, 2))
    with pytest.raises(Conflict, match=job.id):
        references.delete(registry, principal, one)
    with registry.transaction() as session:
        jobs.release(session, attempt, "over")
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)
    follower = submit(registry, principal, from_adapter=two)
    with pytest.raises(NotFound):
        references.delete(registry, stranger, one)
    with pytest.raises(Conflict, match=follower.id) as refused:
        references.delete(registry, principal, two)
    assert refused.value.code == "checkpoint_in_use"
    assert references.delete(registry, principal, resolve(registry, principal, one).name) == one
    assert set(kept(registry, job)) == {2}
    assert {found.key for found in registry.store.list("checkpoints")} == set(kept(registry, job)[2])
    with pytest.raises(NotFound, match="those of step 2"):
        references.delete(registry, principal, one)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_both_objects_of_an_expired_checkpoint_go(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        for step in (1, 2, 3):
            record_checkpoint(session, attempt, step, ends_epoch=True)
    for state, adapter in kept(registry, job).values():
        for key in filter(None, (state, adapter)):
            registry.store.put(key, b"x")
    with registry.transaction() as session:
        session.get_one(Job, job.id).status = "cancelled"
        session.get_one(Job, job.id).finished_at = 1
    assert retention.expire(registry) == 3
    assert list(registry.store.list("checkpoints")) == []
