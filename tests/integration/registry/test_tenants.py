"""Keys, scopes, and walls between tenants."""

import hashlib
import hmac
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from registry import adapters, files, jobs, tenants
from registry.context import Registry
from registry.db import now_seconds
from registry.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unauthorized
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


def test_what_cannot_be_a_key_is_refused_without_a_look(registry: Registry, api_key: str) -> None:
    asked: list[str] = []
    event.listen(registry.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    with registry.sessions() as session:
        for wrong in (api_key[:-1] + ("0" if api_key[-1] != "0" else "1"), "osk-wrong", ""):
            with pytest.raises(Unauthorized):
                tenants.authenticate(session, wrong)
        assert asked == []
        tenants.authenticate(session, api_key)
    assert asked


def test_keys_from_before_there_was_a_checksum_work(registry: Registry) -> None:
    plaintext = "osk-" + token_urlsafe(32)
    with registry.transaction() as session:
        key, _ = tenants.create_key(session, "acme", "ci", ["read"])
        key.digest = registry.settings.server_secrets.digests(plaintext)[0][1]
        key.secret_id = None
    with registry.reading() as session:
        assert tenants.authenticate(session, plaintext).key_id == key.id


def test_a_key_ends_when_its_time_is_over(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        before = session.scalars(select(now_seconds())).one()
        key, plaintext = tenants.grant_key(session, principal, "ci", ["read"], lifetime_seconds=60)
        assert key.expires_at is not None
        assert before <= key.expires_at - 60 <= key.created_at
        assert tenants.authenticate(session, plaintext).expires_at == key.expires_at
        key.expires_at = key.created_at
        session.flush()
        with pytest.raises(Unauthorized, match="has expired") as caught:
            tenants.authenticate(session, plaintext)
        assert caught.value.code == "expired_api_key"
        assert tenants.ended(session, [key.id]) == {key.id}


def test_no_key_outlives_its_maker(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        _, plaintext = tenants.grant_key(session, principal, "short", ["admin"], lifetime_seconds=60)
        short = tenants.authenticate(session, plaintext)
        heir, _ = tenants.grant_key(session, short, "heir", ["read"])
        assert (heir.expires_at, heir.created_by) == (short.expires_at, short.key_id)
        assert tenants.grant_key(session, short, "sooner", ["read"], lifetime_seconds=5)[0].expires_at
        with pytest.raises(Forbidden) as caught:
            tenants.grant_key(session, short, "longer", ["read"], lifetime_seconds=3600)
        assert caught.value.code == "outlives_its_maker"


def test_a_key_for_a_tenant_that_is_not_there_makes_none(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session:
        with pytest.raises(NotFound) as caught:
            tenants.grant_key(session, principal, "ci", ["read"], "acmee")
        assert caught.value.param == "tenant"
        tenants.create_tenant(session, principal, "acme")
        with pytest.raises(Conflict):
            tenants.create_tenant(session, principal, "acme")
        with pytest.raises(InvalidRequest):
            tenants.create_tenant(session, principal, "tenant-1")
        assert tenants.grant_key(session, principal, "ci", ["read"], "acme")[0].created_by == principal.key_id
    with registry.reading() as session:
        names = {tenant.name for tenant in tenants.list_tenants(session, principal).data}
    assert names == {"acme", "default"}


def test_only_operators_see_tenants(registry: Registry, stranger: Principal) -> None:
    with registry.transaction() as session:
        for reach in (
            lambda: tenants.list_tenants(session, stranger),
            lambda: tenants.get_tenant(session, stranger, "stranger"),
            lambda: tenants.create_tenant(session, stranger, "another"),
        ):
            with pytest.raises(Forbidden, match="'operator'"):
                reach()


def test_keys_come_in_pages(registry: Registry, principal: Principal, stranger: Principal) -> None:
    with registry.transaction() as session:
        made = [tenants.create_key(session, "default", str(n), ["read"])[0].id for n in range(4)]
    with registry.reading() as session:
        first, names = tenants.list_keys(session, principal, "default", limit=3)
        rest, _ = tenants.list_keys(session, principal, "default", after=first.data[-1].id)
        assert ([key.id for key in (*first.data, *rest.data)], first.has_more) == (
            [*reversed(made), principal.key_id],
            True,
        )
        assert set(names.values()) == {"default"}
        with pytest.raises(NotFound):
            tenants.list_keys(session, stranger, after=made[0])


def test_the_last_use_is_written_now_and_then(registry: Registry, api_key: str) -> None:
    def last_use() -> int | None:
        with registry.reading() as session:
            key_id = tenants.authenticate(session, api_key).key_id
            return session.get_one(ApiKey, key_id).last_used_at

    assert last_use() is None
    registry.key_uses.write(registry.sessions)
    written = last_use()
    assert written is not None
    asked: list[str] = []
    event.listen(registry.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    registry.key_uses.write(registry.sessions)
    assert asked == []
    with registry.transaction() as session:
        session.execute(update(ApiKey).values(last_used_at=written - 100))
    last_use()
    registry.key_uses.write(registry.sessions)
    assert (last_use() or 0) >= written
