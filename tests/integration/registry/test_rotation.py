"""Another server secret: no key and no signing secret is lost on the way."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from registry import rotation, tenants, webhooks
from registry.context import Registry
from registry.errors import Conflict, Unauthorized
from registry.models import ApiKey
from registry.settings import Settings
from registry.tenants import Principal
from registry.webhooks.secrets import secret_of
from registry.webhooks.tables import WebhookEndpoint


@contextmanager
def opened(settings: Settings, secret: str, *fallbacks: str) -> Iterator[Registry]:
    """The installation by other secrets."""
    others = tuple(SecretStr(each) for each in fallbacks)
    with Registry.open(
        settings.model_copy(update={"secret_key": SecretStr(secret), "secret_key_fallbacks": others})
    ) as registry:
        yield registry


def use(registry: Registry, key: str) -> Principal:
    """Authenticates, and writes down what comes of it."""
    with registry.reading() as session:
        who = tenants.authenticate(session, key)
    registry.key_uses.write(registry.sessions)
    return who


def hanging(registry: Registry) -> int:
    with registry.reading() as session:
        return rotation.hanging(session)


def settle(registry: Registry) -> None:
    with registry.transaction() as session:
        rotation.settle(session)


def test_keys_go_over_to_a_new_secret_when_they_are_used(registry: Registry, settings: Settings) -> None:
    with opened(settings, "old") as before, before.transaction() as session:
        keys = [tenants.create_key(session, "acme", name, ["read"])[1] for name in ("busy", "idle")]
    with opened(settings, "new", "old") as between:
        settle(between)
        assert hanging(between) == 2
        assert use(between, keys[0]) == use(between, keys[0])
        assert hanging(between) == 1
    with opened(settings, "new") as after:
        assert use(after, keys[0]).tenant_name == "acme"
        with pytest.raises(Unauthorized):
            use(after, keys[1])


def test_processes_that_have_the_new_secret_first_as_a_fallback(registry: Registry, settings: Settings) -> None:
    """Several processes change one after another: those of before and those of after know each other's keys."""
    with opened(settings, "old") as before, before.transaction() as session:
        _, key = tenants.create_key(session, "acme", "ci", ["read"])
    with opened(settings, "old", "new") as told, opened(settings, "new", "old") as changed:
        for process in (told, changed, told, changed):
            assert use(process, key).tenant_name == "acme"
        assert hanging(changed) == 0


def test_a_key_of_before_secrets_had_names(registry: Registry, settings: Settings) -> None:
    with opened(settings, "old") as before, before.transaction() as session:
        row, key = tenants.create_key(session, "acme", "ci", ["read"])
        session.execute(update(ApiKey).values(secret_id=None))
    with opened(settings, "new", "old") as between:
        settle(between)
        assert hanging(between) == 1
        use(between, key)
        assert hanging(between) == 0
    with registry.transaction() as session:
        session.execute(update(ApiKey).values(secret_id=None))
    with opened(settings, "new") as after:
        settle(after)
        assert hanging(after) == 0
        assert state(after, row.id) == "current"
    with opened(settings, "another") as lost:
        assert (state(lost, row.id), hanging(lost)) == ("lost", 0)


def state(registry: Registry, key_id: str) -> str:
    with registry.reading() as session:
        return registry.settings.server_secrets.state_of(session.get_one(ApiKey, key_id).secret_id)


def test_a_key_that_is_revoked_while_it_is_hashed_anew_stays_revoked(registry: Registry, settings: Settings) -> None:
    with opened(settings, "old") as before, before.transaction() as session:
        row, key = tenants.create_key(session, "acme", "ci", ["admin"])
    with opened(settings, "new", "old") as between:
        with between.reading() as session:
            who = tenants.authenticate(session, key)
        with between.transaction() as session:
            tenants.revoke_key(session, who, row.id)
        between.key_uses.write(between.sessions)
        with pytest.raises(Unauthorized):
            use(between, key)


def make_endpoint(session: Session, principal: Principal) -> WebhookEndpoint:
    where = {"name": "n", "url": "https://93.184.216.34/"}
    return webhooks.create(session, principal, Settings(), **where, event_types=["adapter.published"])


def signing(session: Session, principal: Principal, endpoint_id: str) -> list[str]:
    endpoint = webhooks.get(session, principal, endpoint_id)
    return [secret_of(session, salt) for salt in (endpoint.salt, *(old["salt"] for old in endpoint.old_salts))]


def test_signing_secrets_outlive_server_secrets(registry: Registry, settings: Settings, principal: Principal) -> None:
    with opened(settings, "first") as before, before.transaction() as session:
        made = make_endpoint(session, principal).id
        webhooks.rotate_secret(session, principal, made, keep_old=True)
        known = signing(session, principal, made)
    assert len(set(known)) == 2
    for secret, fallback in (("second", "first"), ("third", "second"), ("first", "third")):
        with opened(settings, secret, fallback) as between:
            with between.reading() as session:
                assert signing(session, principal, made) == known
            settle(between)
        with opened(settings, secret) as after, after.reading() as session:
            assert signing(session, principal, made) == known
    with opened(settings, "another") as lost, lost.reading() as session:
        assert not set(signing(session, principal, made)) & set(known)


def test_an_endpoint_of_before_salts_named_their_secret(
    registry: Registry, settings: Settings, principal: Principal
) -> None:
    with registry.transaction() as session:
        made = make_endpoint(session, principal)
        made.salt = made.salt.split(":")[1]
    with opened(settings, "old") as before:
        with before.reading() as session:
            known = signing(session, principal, made.id)
        settle(before)
    with opened(settings, "new", "old") as between:
        settle(between)
    with opened(settings, "new") as after, after.reading() as session:
        assert signing(session, principal, made.id) == known


class TestOfTheFile:
    """The secret of an installation that was configured none."""

    def test_a_rotation(self, settings: Settings, registry: Registry, api_key: str, principal: Principal) -> None:
        before = settings.secret_key_path.read_text()
        with registry.transaction() as session:
            _, idle = tenants.create_key(session, "acme", "idle", ["read"])
            assert "Next: restart" in rotation.begin(settings, session)
        new, old = settings.secret_key_path.read_text().splitlines(keepends=True)
        assert old == before != new
        assert settings.secret_key_path.stat().st_mode & 0o777 == 0o600
        with Registry.open(settings) as restarted:
            use(restarted, api_key)
            with pytest.raises(Conflict, match="1 key hangs"), restarted.transaction() as session:
                rotation.finish(settings, session)
            use(restarted, idle)
            with restarted.transaction() as session:
                rotation.finish(settings, session)
        assert settings.secret_key_path.read_text() == new
        with Registry.open(settings) as again:
            assert use(again, idle).tenant_name == "acme"

    def test_a_configured_secret_is_not_in_it(self, settings: Settings, registry: Registry) -> None:
        configured = settings.model_copy(update={"secret_key": SecretStr("s")})
        for turn in (rotation.begin, rotation.finish):
            with registry.transaction() as session, pytest.raises(Conflict, match="OSORA_SECRET_KEY"):
                turn(configured, session)


def test_no_secret_is_shown(settings: Settings) -> None:
    with opened(settings, "hush-current", "hush-fallback") as registry:
        secrets = registry.settings.server_secrets
        assert "hush" not in repr((registry.settings, secrets))
        with registry.transaction() as session:
            tenants.create_key(session, "acme", "ci", ["read"])
            stored = repr(session.execute(select(ApiKey.__table__)).all())
        assert not any(secret in stored for secret in ("hush", secrets.current))
