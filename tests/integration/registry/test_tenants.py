"""Keys, scopes, and walls between tenants."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import adapters, files, jobs, tenants
from registry.context import Registry
from registry.errors import Forbidden, InvalidRequest, NotFound, Unauthorized
from registry.jobs import JobRequest
from registry.models import Adapter, ApiKey, File, Job
from registry.tenants import Principal
from tests.support.jobs import claim, new_adapter, record_checkpoint, submit, upload
from tests.support.threads import in_parallel


def test_only_the_hmac_of_a_key_is_kept(registry: Registry) -> None:
    with registry.transaction() as session:
        key, plaintext = tenants.create_key(session, "acme", "ci", ["train", "read", "read"])
    assert plaintext.startswith("osk-")
    assert len(plaintext) > 40
    pepper = registry.settings.server_secrets.current.encode()
    assert key.digest == hmac.new(pepper, plaintext.encode(), hashlib.sha256).hexdigest()
    with registry.engine.connect() as connection:
        stored = repr(connection.execute(select(ApiKey)).all())
    assert plaintext not in stored
    assert plaintext.removeprefix("osk-") not in stored
    assert key.hint == plaintext[-4:]


def test_authentication(registry: Registry) -> None:
    with registry.transaction() as session:
        key, plaintext = tenants.create_key(session, "acme", "ci", ["read"])
        who = tenants.authenticate(session, plaintext)
    assert who == Principal(key.tenant_id, "acme", key.id, frozenset({"read"}))
    who.require("read")
    with pytest.raises(Forbidden, match="'train'"):
        who.require("train")


@pytest.mark.parametrize(
    ("scope", "includes"),
    [
        ("read", ["read"]),
        ("train", ["train"]),
        ("generate", ["generate"]),
        ("admin", ["read", "train", "generate", "admin"]),
        ("operator", ["read", "train", "generate", "admin", "operator"]),
    ],
)
def test_what_a_scope_includes(scope: str, includes: list[str]) -> None:
    who = Principal("t", "n", "k", frozenset({scope}))
    assert [name for name in tenants.ALL_SCOPES if who.has(name)] == includes


@pytest.mark.parametrize(
    "plaintext", ["", "osk-", "osk-wrong", "osk-" + "0" * 49, "osk-" + "a" * 43, "\ud800", "\0", "é"]
)
def test_wrong_keys(registry: Registry, api_key: str, plaintext: str) -> None:
    with registry.reading() as session, pytest.raises(Unauthorized) as caught:
        tenants.authenticate(session, plaintext)
    assert "wrong" not in caught.value.message


def test_another_pepper_makes_another_world(registry: Registry, api_key: str) -> None:
    other = registry.settings.model_copy(update={"secret_key": registry.settings.internal_token})
    (registry.settings.data_dir / "secret.key").write_text("rotated")
    with Registry.open(other) as reopened, reopened.reading() as session, pytest.raises(Unauthorized):
        tenants.authenticate(session, api_key)


def test_revoked_keys(registry: Registry, principal: Principal, api_key: str, stranger: Principal) -> None:
    with registry.transaction() as session, pytest.raises(NotFound):
        tenants.revoke_key(session, stranger, principal.key_id)
    with registry.transaction() as session:
        revoked = tenants.revoke_key(session, principal, principal.key_id)
        when = revoked.revoked_at
        assert when is not None
        assert tenants.revoke_key(session, principal, principal.key_id).revoked_at == when
        assert principal.key_id in [key.id for key in tenants.list_keys(session, principal)[0].data]
        with pytest.raises(Unauthorized):
            tenants.authenticate(session, api_key)


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", ""]])
def test_unknown_scopes(registry: Registry, scopes: list[str]) -> None:
    with registry.transaction() as session, pytest.raises(InvalidRequest) as caught:
        tenants.create_key(session, "acme", "ci", scopes)
    assert caught.value.param == "scopes"


@pytest.mark.parametrize("name", ["", "Acme", "a:b", "a b", "-a", "a" * 64, "a\n"])
def test_names_that_a_tenant_cannot_have(registry: Registry, name: str) -> None:
    with registry.transaction() as session, pytest.raises(InvalidRequest) as caught:
        tenants.ensure_tenant(session, name)
    assert caught.value.param == "tenant"


def test_a_tenant_is_made_once(registry: Registry) -> None:
    made: list[str] = []

    def work(index: int) -> None:
        with registry.transaction() as session:
            made.append(tenants.ensure_tenant(session, "acme").id)

    in_parallel(6, work)
    assert len(made) == 6
    assert len(set(made)) == 1


def test_a_strangers_rows_are_not_found(registry: Registry, principal: Principal, stranger: Principal) -> None:
    file = upload(registry, principal)
    job = submit(registry, principal, training_file=file.id)
    attempt = claim(registry, submit(registry, principal, training_file=file.id))
    with registry.transaction() as session:
        record_checkpoint(session, attempt, 1)
        adapter = jobs.complete(session, attempt, step=1, trained_tokens=1, adapter=new_adapter(attempt), metrics={})
    for reach in _reaches(registry, stranger, file, job, adapter):
        with registry.transaction() as session, pytest.raises(NotFound) as caught:
            reach(session)
        assert caught.value.next_action
    with registry.reading() as session:
        for listed in (files.list, jobs.list, adapters.list):
            assert listed(session, stranger).data == []
    # And all of it is still there for its owner.
    with registry.reading() as session:
        assert jobs.get(session, principal, job.id).status == "queued"
        assert files.get(session, principal, file.id)
        assert adapters.get(session, principal, adapter.name).id == adapter.id


def _reaches(
    registry: Registry, stranger: Principal, file: File, job: Job, adapter: Adapter
) -> list[Callable[[Session], Any]]:
    of_job: list[Any] = [
        jobs.get,
        jobs.cancel,
        jobs.pause,
        jobs.resume,
        jobs.events,
        jobs.checkpoints,
        jobs.attempts,
    ]
    return [
        *((lambda session, use=use: use(session, stranger, job.id)) for use in of_job),
        lambda session: jobs.list(session, stranger, after=job.id),
        lambda session: jobs.submit(session, stranger, JobRequest("osora-tiny", file.id), registry.settings),
        lambda session: files.get(session, stranger, file.id),
        lambda session: files.list(session, stranger, after=file.id),
        lambda session: adapters.get(session, stranger, adapter.id),
        lambda session: adapters.get(session, stranger, adapter.name),
        lambda session: adapters.list(session, stranger, after=adapter.id),
    ]


def test_a_stranger_neither_reads_nor_deletes_bytes(
    registry: Registry, principal: Principal, stranger: Principal
) -> None:
    file = upload(registry, principal)
    attempt = claim(registry, submit(registry, principal))
    with registry.transaction() as session:
        adapter = jobs.complete(session, attempt, step=1, trained_tokens=1, adapter=new_adapter(attempt), metrics={})
    for module, identifier in ((files, file.id), (adapters, adapter.id)):
        with pytest.raises(NotFound), registry.reading() as session:
            module.get(session, stranger, identifier)
        with pytest.raises(NotFound):
            module.delete(registry, stranger, identifier)
    assert registry.store.size(file.object_key) == file.bytes
