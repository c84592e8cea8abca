"""Adapters by id and by name."""

import pytest

from registry import adapters, jobs
from registry.context import Registry
from registry.errors import NotFound
from registry.models import Adapter
from registry.references import AdapterRef
from registry.tenants import Principal
from tests.support.jobs import claim, new_adapter, read, submit


def publish(registry: Registry, principal: Principal, content: bytes = b"zip") -> Adapter:
    attempt = claim(registry, submit(registry, principal))
    new = new_adapter(attempt)
    registry.store.put(new.object_key, content)
    with registry.transaction() as session:
        return jobs.complete(session, attempt, step=1, trained_tokens=1, adapter=new, metrics={})


def test_by_id_and_by_name(registry: Registry, principal: Principal) -> None:
    adapter = publish(registry, principal)
    with registry.reading() as session:
        assert adapters.get(session, principal, adapter.id).name == adapter.name
        assert adapters.get(session, principal, adapter.name).id == adapter.id
        with pytest.raises(NotFound) as caught:
            adapters.get(session, principal, "ft:nothing", param="model")
    assert caught.value.param == "model"


def test_a_reference_is_all_that_a_server_needs(registry: Registry, principal: Principal) -> None:
    adapter = publish(registry, principal)
    assert AdapterRef.of(adapter) == AdapterRef(
        id=adapter.id,
        name=adapter.name,
        tenant_id=principal.tenant_id,
        version=1,
        job_id=adapter.job_id,
        step=9,
        rank=16,
        object_key=adapter.object_key,
        sha256="a" * 64,
        bytes=1234,
        base="osora-tiny",
        base_fingerprint="base-hash",
        basis_fingerprint="basis-hash",
        created_at=adapter.created_at,
        parameters=adapter.parameters,
        target_modules=adapter.target_modules,
    )


def test_adapters_page(registry: Registry, principal: Principal) -> None:
    made = [publish(registry, principal).id for _ in range(3)]
    with registry.reading() as session:
        page = adapters.list(session, principal, limit=2)
        assert ([row.id for row in page.data], page.has_more) == (made[:0:-1], True)
        rest = adapters.list(session, principal, after=made[1])
        assert [row.id for row in rest.data] == made[:1]
        assert adapters.list(session, principal, base="another").data == []


def test_deleting_keeps_the_job_and_its_name_for_the_model(registry: Registry, principal: Principal) -> None:
    adapter = publish(registry, principal)
    assert adapters.delete(registry, principal, adapter.name).id == adapter.id
    assert registry.store.size(adapter.object_key) is None
    with registry.reading() as session:
        job = jobs.get(session, principal, adapter.job_id)
    assert (job.status, job.adapter_id, job.fine_tuned_model) == ("succeeded", None, adapter.name)
    assert read(registry, principal, job).is_terminal
    with registry.reading() as session, pytest.raises(NotFound):
        adapters.get(session, principal, adapter.id)
