"""Adapters without a job: listed, held, expired and deleted as all others. No job begins with a plain LoRA."""

import io
import time
from dataclasses import replace

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from registry import adapter_imports, adapters, references, retention, webhooks
from registry.adapter_imports import Facts
from registry.context import Registry
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.ids import short
from registry.models import Adapter
from registry.names import aliases
from registry.tenants import Principal
from tests.support.archives import archive
from tests.support.jobs import submit

LORA = Facts("lora", 4, 1280, ["q_proj"], "base-hash", None, [])
OSORA = replace(LORA, type="osora", basis_fingerprint="basis-hash")


def bring(registry: Registry, principal: Principal, facts: Facts = LORA, suffix: str | None = None) -> Adapter:
    draft = adapter_imports.store(registry, principal, "osora-tiny", io.BytesIO(archive()))
    return adapter_imports.publish(registry, principal, draft, facts, suffix, lambda _, adapter: adapter)


def test_it_is_named_and_found_like_any_other(registry: Registry, principal: Principal, stranger: Principal) -> None:
    brought = bring(registry, principal, suffix="mine")
    assert brought.name == f"ft:osora-tiny:{principal.tenant_name}:mine:{short(brought.id)}"
    assert (brought.job_id, brought.type, brought.basis_fingerprint) == (None, "lora", None)
    assert abs(brought.created_at - time.time()) < 60
    with registry.reading() as session:
        for name in (brought.id, brought.name):
            ref = references.refer(session, principal, name)
            assert (ref.id, ref.type, ref.job_id) == (brought.id, "lora", None)
            with pytest.raises(NotFound):
                references.refer(session, stranger, name)
        payload = references.call(session, principal, brought.name, b"").payload()
        assert payload["adapter"]["type"] == "lora"
        assert [row.id for row in adapters.list(session, principal).data] == [brought.id]
        assert adapters.list(session, stranger).data == []
    assert registry.store.size(brought.object_key) == brought.bytes
    with pytest.raises(NotFound):
        references.delete(registry, stranger, brought.id)
    references.delete(registry, principal, brought.name)
    assert registry.store.size(brought.object_key) is None
    with registry.reading() as session:
        assert adapters.list(session, principal).data == []


def test_webhooks_are_told_of_it(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        url, kinds = "https://hooks.example.com/osora", webhooks.EVENT_TYPES
        told = webhooks.create(session, principal, registry.settings, name="hook", url=url, event_types=kinds)
    brought = bring(registry, principal)
    with registry.reading() as session:
        (delivery,) = webhooks.deliveries(session, principal, told.id).data
    assert (delivery.event_type, delivery.data["id"]) == ("adapter.published", brought.id)


def test_an_alias_holds_it(registry: Registry, principal: Principal) -> None:
    brought = bring(registry, principal)
    with registry.transaction() as session:
        aliases.put(session, principal, "prod", {brought.id: 1}, bases=["osora-tiny"])
    with pytest.raises(Conflict, match="the alias 'prod' names"):
        references.delete(registry, principal, brought.id)
    with registry.reading() as session:
        assert references.call(session, principal, "prod", b"").adapter == references.AdapterRef.of(brought)


@pytest.mark.parametrize("facts", [LORA, OSORA])
def test_a_job_begins_with_an_adapter_of_the_basis_alone(
    registry: Registry, principal: Principal, facts: Facts
) -> None:
    brought = bring(registry, principal, facts)
    if facts is OSORA:
        job = submit(registry, principal, from_adapter=brought.id)
        assert job.from_adapter_id == brought.id
        with pytest.raises(Conflict, match=job.id):
            references.delete(registry, principal, brought.id)
        return
    with pytest.raises(InvalidRequest, match="is a plain LoRA") as caught:
        submit(registry, principal, from_adapter=brought.id)
    assert caught.value.code == "not_trainable"
    references.delete(registry, principal, brought.id)


def test_retention_takes_it_when_it_is_old_and_its_draft_when_nobody_published_it(
    registry: Registry, principal: Principal
) -> None:
    old, fresh = bring(registry, principal), bring(registry, principal)
    left = adapter_imports.store(registry, principal, "osora-tiny", io.BytesIO(archive()))
    with registry.transaction() as session:
        session.execute(update(Adapter).where(Adapter.id == old.id).values(created_at=1))
    kept = replace(registry, settings=registry.settings.model_copy(update={"adapter_retention_days": 30.0}))
    retention.expire(kept)
    with registry.reading() as session:
        assert [row.id for row in adapters.list(session, principal).data] == [fresh.id]
    assert registry.store.size(old.object_key) is None
    assert retention.delete_orphans(kept) == 0
    assert registry.store.size(left.object_key) == left.bytes
    adapter_imports.discard(registry, left)
    assert registry.store.size(left.object_key) is None
    assert registry.store.size(fresh.object_key) == fresh.bytes


def test_the_database_refuses_what_cannot_be(registry: Registry, principal: Principal) -> None:
    for facts in (replace(LORA, type="osora"), replace(LORA, type="vera")):  # type: ignore[arg-type]
        with pytest.raises(IntegrityError):
            bring(registry, principal, facts)


def test_bases_by_name(registry: Registry) -> None:
    settings = registry.settings
    assert adapter_imports.base_of(list(settings.base_paths), None) == "osora-tiny"
    with pytest.raises(NotFound, match="no base 'other'") as caught:
        adapter_imports.base_of(list(settings.base_paths), "other")
    assert caught.value.param == "base"
    several = settings.model_copy(update={"bases": "osora-tiny,b=/b"})
    assert adapter_imports.base_of(list(several.base_paths), "b") == "b"
    with pytest.raises(InvalidRequest, match="osora-tiny, b"):
        adapter_imports.base_of(list(several.base_paths), None)
