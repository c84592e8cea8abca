"""Aliases: what they may stand for, how they move and come back, and what they keep from being deleted."""

import time
from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event, update

from registry import adapters, jobs, references, retention
from registry.context import Registry
from registry.errors import Conflict, InvalidRequest, NotFound, OsoraError
from registry.models import Adapter
from registry.names import aliases
from registry.names.tables import Alias, AliasVersion
from registry.references import Target, call, refer
from registry.tenants import Principal
from tests.support.jobs import claim, new_adapter, record_checkpoint, submit
from tests.support.threads import in_parallel

OLD_NAME = "ft:gpt-4o-mini-2024-07-18:acme::AbC12345"
DAY = 86400
BASES = ("osora-tiny",)


def publish(registry: Registry, principal: Principal) -> Adapter:
    attempt = claim(registry, submit(registry, principal))
    new = new_adapter(attempt)
    registry.store.put(new.object_key, b"zip")
    with registry.transaction() as session:
        return jobs.complete(session, attempt, step=1, trained_tokens=1, adapter=new, metrics={})


@pytest.fixture
def pair(registry: Registry, principal: Principal) -> tuple[Adapter, Adapter]:
    """An adapter and its successor."""
    return publish(registry, principal), publish(registry, principal)


def put(registry: Registry, principal: Principal, name: str, *given: str, **more: Any) -> Alias:
    weights = more.pop("weights", None) or dict.fromkeys(given, 1)
    with registry.transaction() as session:
        return aliases.put(session, principal, name, weights, bases=BASES, **more)


def roll_back(registry: Registry, principal: Principal, name: str, **more: Any) -> Alias:
    with registry.transaction() as session:
        return aliases.rollback(session, principal, name, bases=BASES, **more)


def shown(alias: Alias) -> dict[str, int]:
    return {target.name: target.weight for target in alias.targets}


def ask(registry: Registry, principal: Principal, name: str, user: str = "ann") -> Target:
    with registry.reading() as session:
        return call(session, principal, name, user.encode())


def past(registry: Registry, principal: Principal, name: str) -> list[tuple[int, list[str], int | None]]:
    with registry.reading() as session:
        return [
            (change.version.version, list(change.version.targets), change.version.restored)
            for change in aliases.history(session, principal, name)
        ]


def refused(error: type[OsoraError], code: str, *given: Any, **more: Any) -> OsoraError:
    with pytest.raises(error) as caught:
        put(*given, **more)
    assert caught.value.code == code
    return caught.value


def test_an_alias_is_made_moved_and_rolled_back(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    old, new = pair
    assert put(registry, principal, OLD_NAME, old.name).version == 1
    target = ask(registry, principal, OLD_NAME)
    assert (target.adapter and target.adapter.id, target.base, target.alias) == (old.id, "osora-tiny", OLD_NAME)
    moved = put(registry, principal, OLD_NAME, new.id)
    assert (moved.version, shown(moved)) == (2, {new.name: 1}), "shown by name, whatever it was given by"
    assert roll_back(registry, principal, OLD_NAME).version == 3
    target = ask(registry, principal, OLD_NAME)
    assert target.adapter is not None
    assert target.adapter.name == old.name
    assert past(registry, principal, OLD_NAME) == [(3, [old.name], 1), (2, [new.name], None), (1, [old.name], None)]
    assert shown(roll_back(registry, principal, OLD_NAME)) == {new.name: 1}, "a second one takes the first one back"
    assert shown(roll_back(registry, principal, OLD_NAME, to=1)) == {old.name: 1}
    with registry.reading() as session:
        (change, *_) = aliases.history(session, principal, OLD_NAME)
    assert (change.version.key_id, change.key_name) == (principal.key_id, "test")
    assert time.time() - 600 < change.version.created_at < time.time() + 600


def test_a_split_keeps_each_user_at_one_target(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    old, new = pair
    put(registry, principal, "triage", weights={old.name: 80, new.name: 20})
    users = [f"user-{number}" for number in range(150)]

    def answering() -> dict[str, str]:
        found = {user: ask(registry, principal, "triage", user).adapter for user in users}
        return {user: ref.id for user, ref in found.items() if ref}

    before = answering()
    assert before == answering()
    counts = Counter(before.values())
    assert 5 <= counts[new.id] <= 60
    put(registry, principal, "triage", weights={new.name: 40, old.name: 60})
    after = answering()
    assert {after[user] for user in users if before[user] == new.id} == {new.id}, "who has the new one keeps it"


def test_what_it_may_stand_for(registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]) -> None:
    adapter, _ = pair
    job = submit(registry, principal)
    with registry.transaction() as session:
        record_checkpoint(session, claim(registry, job), 5)
    checkpoint = f"ftckpt_{job.id[-16:]}_5"
    put(registry, principal, "all", adapter.id, checkpoint, "osora-tiny")
    found = {user: ask(registry, principal, "all", user) for user in map(str, range(60))}
    ids = {target.adapter and target.adapter.id for target in found.values()}
    assert ids == {adapter.id, checkpoint, None}
    assert {target.base for target in found.values()} == {"osora-tiny"}
    names = {target.adapter.name for target in found.values() if target.adapter}
    assert f"ft:osora-tiny:default::{job.id[-16:]}:ckpt-step-5" in names


def test_what_it_may_not_stand_for(
    registry: Registry, principal: Principal, stranger: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    old, new = pair
    put(registry, principal, "known", old.id)
    error = refused(NotFound, "model_not_found", registry, principal, "x", "gpt-4o-mini")
    assert (error.param, "gpt-4o-mini" in error.message) == ("targets", True)
    refused(NotFound, "model_not_found", registry, stranger, "x", old.id)
    assert "alias" in refused(InvalidRequest, "invalid_value", registry, principal, "x", "known").message
    assert "same model" in refused(InvalidRequest, "invalid_value", registry, principal, "x", old.id, old.name).message
    for weights in ({}, {old.id: 0}, {old.id: -1}, {old.id: 10**7}, dict.fromkeys(map(str, range(11)), 1)):
        with pytest.raises(InvalidRequest), registry.transaction() as session:
            aliases.put(session, principal, "x", weights, bases=BASES)
    with registry.reading() as session:
        assert not aliases.exists(session, principal, "x")
        assert new.name


def test_an_alias_hides_no_model(registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]) -> None:
    old, new = pair
    for taken in ("osora-tiny", old.name):
        refused(Conflict, "alias_name_taken", registry, principal, taken, new.id)
    impossible = (
        "",
        "a b",
        "adp-1",
        "ftjob-1",
        "ftckpt_1",
        "x/history",
        "x/rollback",
        "/x",
        "x/",
        "a//b",
        "a/../b",
        "ä",
    )
    for name in impossible:
        refused(InvalidRequest, "invalid_value", registry, principal, name, new.id)
    adapters.delete(registry, principal, old.id)
    put(registry, principal, old.name, new.id)  # callers of what is gone are served by its successor
    target = ask(registry, principal, old.name)
    assert target.adapter is not None
    assert target.adapter.id == new.id


def test_tenants_do_not_see_each_others(
    registry: Registry, principal: Principal, stranger: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    put(registry, principal, "triage", pair[0].id)
    theirs = publish(registry, stranger)
    for action in (lambda: ask(registry, stranger, "triage"), lambda: past(registry, stranger, "triage")):
        with pytest.raises(NotFound):
            action()
    with pytest.raises(NotFound), registry.transaction() as session:
        aliases.remove(session, stranger, "triage")
    with pytest.raises(NotFound):
        roll_back(registry, stranger, "triage")
    assert put(registry, stranger, "triage", theirs.id).version == 1
    own = ask(registry, principal, "triage").adapter
    assert own is not None
    assert own.id == pair[0].id
    with registry.reading() as session:
        assert [alias.name for alias in aliases.everything(session, stranger)] == ["triage"]


def test_a_change_that_another_one_came_before_is_refused(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    old, new = pair
    put(registry, principal, "triage", old.id, expected_version=0)
    refused(Conflict, "alias_moved", registry, principal, "triage", new.id, expected_version=0)
    put(registry, principal, "triage", new.id, expected_version=1)
    error = refused(Conflict, "alias_moved", registry, principal, "triage", old.id, expected_version=1)
    assert "version 2" in error.message
    with pytest.raises(Conflict):
        roll_back(registry, principal, "triage", expected_version=1)
    roll_back(registry, principal, "triage", expected_version=2)


def test_of_changes_at_once_none_is_lost(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    """Every one is in the history; of those that expect the same version one comes through."""
    old, new = pair
    made: list[dict[str, int]] = [{old.name: 1, new.name: index + 1} for index in range(6)]
    in_parallel(6, lambda index: put(registry, principal, "triage", weights=made[index]))
    with registry.reading() as session:
        versions = [change.version for change in aliases.history(session, principal, "triage")]
    assert [version.version for version in versions] == [6, 5, 4, 3, 2, 1]
    assert sorted(version.targets[new.name] for version in versions) == [1, 2, 3, 4, 5, 6]
    outcomes: list[str] = []

    def race(index: int) -> None:
        try:
            put(registry, principal, "triage", weights={old.name: 9, new.name: index + 10}, expected_version=6)
            outcomes.append("moved")
        except Conflict as error:
            outcomes.append(str(error.code))

    in_parallel(4, race)
    assert sorted(outcomes) == ["alias_moved"] * 3 + ["moved"]


class TestDeletion:
    def test_what_an_alias_names_is_not_deleted(
        self, registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
    ) -> None:
        old, new = pair
        put(registry, principal, "triage", weights={old.id: 95, new.id: 5})
        for adapter in pair:
            with pytest.raises(Conflict, match="the alias 'triage' names") as caught:
                adapters.delete(registry, principal, adapter.id)
            assert caught.value.code == "adapter_in_use"
            assert "triage" in str(caught.value.next_action)
        put(registry, principal, "triage", new.id)
        assert references.delete(registry, principal, old.name) == old.id
        with pytest.raises(Conflict, match=old.name) as caught:
            roll_back(registry, principal, "triage")
        assert caught.value.code == "alias_target_gone"
        put(registry, principal, old.name, new.id)
        with pytest.raises(Conflict, match=f"cannot come back: '{old.name}' is an alias") as caught:
            roll_back(registry, principal, "triage")
        assert caught.value.code == "alias_target_gone"
        found = ask(registry, principal, "triage").adapter
        assert found is not None
        assert found.id == new.id

    def test_by_the_name_of_an_alias_nothing_is_deleted_but_the_alias(
        self, registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
    ) -> None:
        old, new = pair
        adapters.delete(registry, principal, old.id)
        for name in ("triage", old.name, f"{old.name}:ckpt-step-5"):
            put(registry, principal, name, new.id)
            with pytest.raises(NotFound):
                references.delete(registry, principal, name)
            with registry.transaction() as session:
                aliases.remove(session, principal, name)
            with pytest.raises(NotFound):
                ask(registry, principal, name)
        assert adapters.delete(registry, principal, new.id).id == new.id

    def test_retention_leaves_what_an_alias_names(
        self, registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
    ) -> None:
        old, new = pair
        put(registry, principal, "triage", old.id)
        with registry.transaction() as session:
            session.execute(update(Adapter).values(created_at=time.time() - 100 * DAY))
        expiring = replace(registry, settings=registry.settings.model_copy(update={"adapter_retention_days": 1}))
        assert retention.expire(expiring) == 1
        assert registry.store.size(old.object_key) is not None
        assert registry.store.size(new.object_key) is None
        with registry.transaction() as session:
            aliases.remove(session, principal, "triage")
        assert retention.expire(expiring) == 1

    def test_a_checkpoint_that_an_alias_names_is_kept(self, registry: Registry, principal: Principal) -> None:
        job = submit(registry, principal)
        attempt = claim(registry, job)
        with registry.transaction() as session:
            record_checkpoint(session, attempt, 1)
        name = f"ftckpt_{job.id[-16:]}_1"
        put(registry, principal, "triage", name)
        with registry.transaction() as session:
            for step in (2, 3, 4):
                record_checkpoint(session, attempt, step)
            jobs.complete(session, attempt, step=4, trained_tokens=1, adapter=new_adapter(attempt), metrics={})
            session.execute(update(jobs.queries.Job).values(finished_at=time.time() - 100 * DAY))
        retention.expire(registry)
        found = ask(registry, principal, "triage").adapter
        assert found is not None
        assert found.id == name
        with pytest.raises(Conflict, match="triage"):
            references.delete(registry, principal, name)

    def test_deleting_and_naming_at_once(self, registry: Registry, principal: Principal) -> None:
        """Either the adapter is gone and the alias was refused, or the alias holds it."""
        for number in range(4):
            adapter = publish(registry, principal)
            name = f"a{number}"
            (error,) = self.race(registry, principal, adapter, name)
            if isinstance(error, Conflict):
                assert ask(registry, principal, name).adapter
            else:
                assert registry.store.size(adapter.object_key) is None

    def race(self, registry: Registry, principal: Principal, adapter: Adapter, name: str) -> list[OsoraError]:
        refusals: list[OsoraError] = []

        def work(index: int) -> None:
            try:
                if index:
                    put(registry, principal, name, adapter.id)
                else:
                    adapters.delete(registry, principal, adapter.id)
            except (Conflict, NotFound) as error:
                refusals.append(error)

        in_parallel(2, work)
        return refusals

    def test_a_deleted_alias_comes_back(
        self, registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
    ) -> None:
        put(registry, principal, "triage", pair[0].id)
        with registry.transaction() as session:
            aliases.remove(session, principal, "triage")
        with pytest.raises(NotFound):
            ask(registry, principal, "triage")
        back = roll_back(registry, principal, "triage")
        assert (back.version, shown(back)) == (3, {pair[0].name: 1})
        assert past(registry, principal, "triage")[1] == (2, [], None)
        with registry.transaction() as session:
            aliases.remove(session, principal, "triage")
            session.execute(update(AliasVersion).values(created_at=time.time() - 91 * DAY))
        put(registry, principal, "other", pair[0].id)
        retention.maintain(registry)
        with pytest.raises(NotFound):
            roll_back(registry, principal, "triage")
        assert len(past(registry, principal, "other")) == 1


def test_what_is_sent_twice_is_one_change(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    """Or a roll-back would bring back what is there."""
    old, new = pair
    for _ in range(2):
        put(registry, principal, "triage", old.id)
    for weights in ({old.id: 95, new.id: 5}, {new.name: 5, old.name: 95}):
        assert put(registry, principal, "triage", weights=weights).version == 2
    assert shown(roll_back(registry, principal, "triage")) == {old.name: 1}


def test_the_history_is_bounded(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases, "VERSIONS_KEPT", 3)
    monkeypatch.setattr(aliases, "MOST_ALIASES", 2)
    for adapter in (*pair, *pair):
        put(registry, principal, "triage", adapter.id)
    assert [version for version, _, _ in past(registry, principal, "triage")] == [4, 3, 2]
    with pytest.raises(NotFound, match="no version 1"):
        roll_back(registry, principal, "triage", to=1)
    put(registry, principal, "zeta", pair[0].id)
    refused(Conflict, "too_many_aliases", registry, principal, "third", pair[0].id)
    put(registry, principal, "zeta", pair[1].id)
    with registry.reading() as session:
        page = aliases.list(session, principal, limit=1)
        assert ([alias.name for alias in page.data], page.has_more) == (["zeta"], True)
        rest = aliases.list(session, principal, after="zeta")
        assert ([alias.name for alias in rest.data], rest.has_more) == (["triage"], False)


def test_the_number_of_aliases_is_bounded_for_many_at_once(
    registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases, "MOST_ALIASES", 3)
    refusals: list[Conflict] = []

    def work(index: int) -> None:
        try:
            put(registry, principal, f"alias-{index}", BASES[0])
        except Conflict as conflict:
            refusals.append(conflict)

    in_parallel(8, work)
    with registry.reading() as session:
        assert len(aliases.everything(session, principal)) == 3
    assert {conflict.code for conflict in refusals} == {"too_many_aliases"}


def test_what_is_gone_all_the_same_is_named(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    """Such as a checkpoint whose attempt was begun again before it."""
    put(registry, principal, "triage", pair[0].id)
    with registry.transaction() as session:
        adapters.remove(session, None, [pair[0].id])
    with pytest.raises(NotFound, match=f"'triage' stands for '{pair[0].name}', which is gone") as caught:
        ask(registry, principal, "triage")
    assert (caught.value.code, "roll it back" in str(caught.value.next_action)) == ("alias_target_gone", True)


def test_the_first_version_has_nothing_before_it(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    put(registry, principal, "triage", pair[0].id)
    with pytest.raises(NotFound, match="stood for nothing before"):
        roll_back(registry, principal, "triage")


def test_one_model_is_meant_where_nothing_is_asked(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    old, new = pair
    put(registry, principal, "one", old.id)
    put(registry, principal, "both", old.id, new.id)
    put(registry, principal, "bare", "osora-tiny")
    with registry.reading() as session:
        assert refer(session, principal, "one").id == old.id
        with pytest.raises(InvalidRequest, match="2 models") as caught:
            refer(session, principal, "both")
        assert caught.value.code == "alias_of_several"
        with pytest.raises(NotFound, match="base 'osora-tiny'"):
            refer(session, principal, "bare")


class TestJobs:
    def test_a_job_goes_on_from_what_an_alias_stands_for_at_submission(
        self, registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
    ) -> None:
        old, new = pair
        for name in ("triage", OLD_NAME):
            put(registry, principal, name, old.id)
        found = [
            submit(registry, principal, base="triage"),
            submit(registry, principal, base=None, from_adapter=OLD_NAME),
            submit(registry, principal, from_adapter="triage"),
        ]
        put(registry, principal, "triage", new.id)
        for job in found:
            assert (job.base, job.from_adapter_id, job.osora["from_adapter"]) == ("osora-tiny", old.id, old.name)

    def test_an_alias_of_a_base_is_that_base(
        self, registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
    ) -> None:
        for name in ("gpt-4o-mini", OLD_NAME):
            put(registry, principal, name, "osora-tiny")
        for request in ({"base": "gpt-4o-mini"}, {"base": None, "from_adapter": OLD_NAME}):
            job = submit(registry, principal, **request)
            assert (job.base, job.from_adapter_id, job.osora) == ("osora-tiny", None, {})
        both = submit(registry, principal, base="gpt-4o-mini", from_adapter=pair[0].id)
        assert (both.base, both.from_adapter_id) == ("osora-tiny", pair[0].id)

    def test_what_is_not_clear_is_refused(
        self, registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
    ) -> None:
        put(registry, principal, "both", pair[0].id, pair[1].id)
        put(registry, principal, "one", pair[0].id)
        for request, code in (
            ({"base": "both"}, "alias_of_several"),
            ({"from_adapter": "both"}, "alias_of_several"),
            ({"base": "one", "from_adapter": pair[1].id}, "invalid_value"),
            ({"base": "none"}, "model_not_found"),
        ):
            with pytest.raises(InvalidRequest) as caught:
                submit(registry, principal, **request)
            assert caught.value.code == code


def test_a_request_by_an_alias_costs_one_query(
    registry: Registry, principal: Principal, pair: tuple[Adapter, Adapter]
) -> None:
    for name in ("triage", OLD_NAME):
        put(registry, principal, name, weights={pair[0].id: 95, pair[1].id: 5})
    queries = count()
    event.listen(registry.engine, "before_cursor_execute", lambda *_: next(queries))
    for name in ("triage", OLD_NAME, pair[0].name, pair[0].id):
        ask(registry, principal, name)
    assert next(queries) - 4 * _opening(registry) == 4


def _opening(registry: Registry) -> int:
    """Statements that begin a transaction go another way; on SQLite a PRAGMA and BEGIN are counted."""
    queries = count()
    event.listen(registry.engine, "before_cursor_execute", lambda *_: next(queries))
    with registry.reading() as session:
        session.connection()
    return next(queries)
