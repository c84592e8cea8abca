"""Jobs that begin with an adapter or a checkpoint: what is held for them, and what is refused."""

import time
from dataclasses import replace

import pytest
from sqlalchemy import update

from osora_common.presets import kept_point
from registry import adapters, jobs, retention, workers
from registry.context import Registry
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.jobs import StartRef
from registry.models import Adapter, Job
from registry.references import refer
from registry.tenants import Principal
from tests.support.jobs import claim, new_adapter, read, record_checkpoint, submit

DAY = 86400


@pytest.fixture
def source(registry: Registry, principal: Principal) -> Adapter:
    """An adapter of rank 16, its bytes in the store."""
    attempt = claim(registry, submit(registry, principal, suffix="first"))
    new = new_adapter(attempt)
    registry.store.put(new.object_key, b"zip")
    with registry.transaction() as session:
        return jobs.complete(session, attempt, step=9, trained_tokens=1, adapter=new, metrics={})


@pytest.mark.parametrize("by_model", [False, True])
def test_by_id_or_as_the_model(registry: Registry, principal: Principal, source: Adapter, by_model: bool) -> None:
    request = {"base": None, "from_adapter": source.name} if by_model else {"from_adapter": source.id}
    job = submit(registry, principal, **request)
    assert (job.base, job.from_adapter_id) == ("osora-tiny", source.id)
    assert job.osora == {"from_adapter": request["from_adapter"]}
    assert job.points == [kept_point(16, 0).to_dict()]
    attempt = claim(registry, job)
    assert (attempt.from_adapter_id, attempt.start) == (source.id, StartRef(source.object_key, source.sha256))


def test_with_a_checkpoint(registry: Registry, principal: Principal) -> None:
    """One that a job is to begin with outlives those that would supersede it, until that job has ended."""
    of = submit(registry, principal)
    attempt = claim(registry, of)
    with registry.transaction() as session:
        record_checkpoint(session, attempt, 1)
    with registry.reading() as session:
        ref = refer(session, principal, f"ftckpt_{of.id[-16:]}_1")
    job = submit(registry, principal, base=None, from_adapter=ref.name)
    with registry.transaction() as session:
        unnamed = [key for step in (2, 3) for key in record_checkpoint(session, attempt, step)]
    assert unnamed == [f"checkpoints/{of.id}/1/1.safetensors"]
    assert claim(registry, job).start == StartRef(ref.object_key, ref.sha256)
    with registry.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(status="cancelled"))
        unnamed = record_checkpoint(session, attempt, 4)
    assert ref.object_key in unnamed


def test_an_adapter_that_a_live_job_begins_with_stays(
    registry: Registry, principal: Principal, source: Adapter
) -> None:
    job = submit(registry, principal, from_adapter=source.id)
    with pytest.raises(Conflict, match=job.id) as refused:
        adapters.delete(registry, principal, source.id)
    assert refused.value.code == "adapter_in_use"
    with registry.transaction() as session:
        session.execute(update(Adapter).values(created_at=time.time() - 100 * DAY))
    expiring = replace(registry, settings=registry.settings.model_copy(update={"adapter_retention_days": 1}))
    assert retention.expire(expiring) == 0
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)
    assert retention.expire(expiring) == 1
    assert registry.store.size(source.object_key) is None


def test_what_does_not_fit_is_refused(
    registry: Registry, principal: Principal, stranger: Principal, source: Adapter
) -> None:
    def refused(error: type[NotFound | InvalidRequest], who: Principal = principal, **request: object) -> str | None:
        with pytest.raises(error) as caught:
            submit(registry, who, **request)
        assert caught.value.next_action
        return caught.value.param

    assert refused(NotFound, from_adapter="adp-none") == "osora.from_adapter"
    assert refused(NotFound, base=None, from_adapter="ft:none") == "model"
    assert refused(NotFound, stranger, from_adapter=source.id) == "osora.from_adapter"
    assert refused(InvalidRequest, base="another", from_adapter=source.id) == "osora.from_adapter"
    for rank in (8, 32):
        assert refused(InvalidRequest, from_adapter=source.id, osora={"rank": rank}) == "osora.rank"
    assert submit(registry, principal, from_adapter=source.id, osora={"rank": 16}).osora["rank"] == 16


def test_another_base_of_the_same_name_is_refused_once_a_worker_has_told_of_it(
    registry: Registry, principal: Principal, source: Adapter
) -> None:
    with registry.transaction() as session:
        workers.seen(session, "w", ["osora-tiny"], 1, {"osora-tiny": ("base-hash", "basis-hash")})
    submit(registry, principal, from_adapter=source.id)
    with registry.transaction() as session:
        workers.seen(session, "w", ["osora-tiny"], 1, {"osora-tiny": ("base-hash", "other-basis")})
    with pytest.raises(InvalidRequest, match="other-basis") as refused:
        submit(registry, principal, from_adapter=source.id)
    assert refused.value.code == "identity_mismatch"
    assert "basis-hash" in refused.value.message


def test_one_that_is_gone_all_the_same_is_told_to_the_worker(
    registry: Registry, principal: Principal, source: Adapter
) -> None:
    job = submit(registry, principal, from_adapter=source.id)
    with registry.transaction() as session:
        adapters.remove(session, None, [source.id])
    attempt = claim(registry, read(registry, principal, job))
    assert (attempt.from_adapter_id, attempt.start) == (source.id, None)
