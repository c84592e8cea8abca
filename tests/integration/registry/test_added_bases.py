"""Bases that are added: who may, by what name, how they are prepared, and what keeps them from being removed."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from registry import adapters, jobs
from registry.added_bases import adding, offered, preparing
from registry.added_bases.preparing import MOST_ATTEMPTS, Preparation
from registry.added_bases.tables import AddedBase
from registry.audit_tables import AuditRecord
from registry.context import Registry
from registry.errors import Conflict, Forbidden, InvalidRequest, NotFound
from registry.names import aliases
from registry.tenants import Principal
from tests.support.jobs import claim as claim_job
from tests.support.jobs import new_adapter, submit, upload
from tests.support.threads import in_parallel

FACTS = {
    "content": None, "family": "llama", "has_chat_template": True, "parameters": 7, "bytes": 28,
    "base_fingerprint": "b" * 64, "basis_fingerprint": "c" * 64,
}  # fmt: skip


def add(registry: Registry, principal: Principal, name: str = "second", source: str | None = "/models/second") -> None:
    with registry.transaction() as session:
        adding.add(session, principal, registry.settings, name, source)


def claim(registry: Registry, worker: str = "worker-1") -> Preparation | None:
    with registry.transaction() as session:
        return preparing.claim(session, worker, 60)


def claimed(registry: Registry, worker: str = "worker-1") -> Preparation:
    held = claim(registry, worker)
    assert held is not None
    return held


def expire(registry: Registry) -> None:
    with registry.transaction() as session:
        session.execute(update(AddedBase).values(lease_expires_at=0))


def make_ready(registry: Registry, **facts: Any) -> None:
    held = claimed(registry)
    with registry.transaction() as session:
        assert preparing.finish(session, held, {**FACTS, **facts})


def read(registry: Registry, name: str = "second") -> AddedBase:
    with registry.reading() as session:
        return adding.get(session, name)


def remove(registry: Registry, principal: Principal, *, leave_adapters: bool = False) -> adding.Dependents:
    with registry.transaction() as session:
        return adding.remove(session, principal, registry.settings, "second", leave_adapters=leave_adapters)


def train(registry: Registry, principal: Principal) -> str:
    """The id of an adapter on the base."""
    job = submit(registry, principal, base="second")
    attempt = claim_job(registry, job)
    with registry.transaction() as session:
        found = jobs.complete(session, attempt, step=9, trained_tokens=9, adapter=new_adapter(attempt), metrics={})
    return found.id


def test_it_is_on_offer_when_it_is_ready_and_not_before(registry: Registry, principal: Principal) -> None:
    add(registry, principal)
    with registry.reading() as session:
        assert offered.paths(session, registry.settings) == {"osora-tiny": "osora-tiny"}
    with pytest.raises(InvalidRequest, match="'second' is not on offer here, only osora-tiny"):
        submit(registry, principal, base="second")
    held = claimed(registry)
    with registry.transaction() as session:
        assert preparing.report(session, held, 60, "basis", 0.5, 12.0)
    assert (read(registry).state, read(registry).progress, read(registry).seconds_left) == ("basis", 0.5, 12.0)
    with registry.transaction() as session:
        assert preparing.finish(session, held, FACTS)
    base = read(registry)
    assert (base.state, base.progress, base.lease_token, base.family) == ("ready", None, None, "llama")
    with registry.reading() as session:
        assert list(offered.paths(session, registry.settings)) == ["osora-tiny", "second"]
    assert submit(registry, principal, base="second").status == "queued"
    assert claim(registry) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "a\\b",
        "a--b",
        "..",
        "a..b",
        ".a",
        "-a",
        "a b",
        "a:b",
        "ä",
        "a\n",
        "x" * 64,
        "adp-1",
        "a.gguf",
        "ft:a",
    ],
)
def test_names_that_no_base_can_have(registry: Registry, principal: Principal, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        add(registry, principal, name)
    assert (refused.value.param, refused.value.code) == ("name", "base_unusable")
    assert refused.value.next_action


@pytest.mark.parametrize(
    "source", ["models/x/y", "./x", "~/x", "x.gguf", "no-such-base", "../../etc", "owner/name/more"]
)
def test_sources_that_mean_nothing_on_another_machine(registry: Registry, principal: Principal, source: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        add(registry, principal, "second", source)
    assert refused.value.param == "source"


def test_a_base_that_is_seen_to_be_unusable_is_refused_at_once(
    registry: Registry, principal: Principal, tmp_path: Any
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(InvalidRequest, match="its family 'mamba'") as refused:
        add(registry, principal, "second", str(tmp_path))
    assert refused.value.next_action


def test_who_may(registry: Registry, principal: Principal, stranger: Principal) -> None:
    with pytest.raises(Forbidden):
        add(registry, stranger)
    add(registry, principal)
    with pytest.raises(Forbidden):
        remove(registry, stranger)


def test_of_two_that_add_the_same_name_one_does(registry: Registry, principal: Principal) -> None:
    came: list[str] = []

    def once(index: int) -> None:
        try:
            add(registry, principal, "second", f"/models/{index}")
        except Conflict as error:
            came.append(error.code)
        else:
            came.append("added")

    in_parallel(4, once)
    assert sorted(came) == ["added", *["base_exists"] * 3]
    with registry.reading() as session:
        assert len(adding.everything(session)) == 1


def test_names_that_mean_something_already(registry: Registry, principal: Principal, stranger: Principal) -> None:
    with pytest.raises(Conflict, match="it is in OSORA_BASES"):
        add(registry, principal, "osora-tiny")
    with registry.transaction() as session:
        aliases.put(session, stranger, "second", {"osora-tiny": 1}, bases=["osora-tiny"])
    with pytest.raises(Conflict, match="1 alias of a tenant is called 'second'"):
        add(registry, principal)


def test_a_lost_worker_is_followed_by_another_which_alone_can_report(registry: Registry, principal: Principal) -> None:
    add(registry, principal)
    first = claimed(registry)
    assert claim(registry, "worker-2") is None
    expire(registry)
    second = claimed(registry, "worker-2")
    with registry.transaction() as session:
        assert not preparing.report(session, first, 60, "basis", 0.9, None)
        assert not preparing.finish(session, first, FACTS)
        assert not preparing.fail(session, first, "late", None)
        assert preparing.report(session, second, 60, "basis", 0.1, None)
    assert read(registry).progress == 0.1


def test_one_that_kills_workers_is_given_up_and_one_that_is_handed_back_is_not(
    registry: Registry, principal: Principal
) -> None:
    add(registry, principal)
    for _ in range(5):
        held = claimed(registry)
        with registry.transaction() as session:
            preparing.release(session, held)
    for _ in range(MOST_ATTEMPTS):
        held = claimed(registry)
        with registry.transaction() as session:
            preparing.crash(session, held, "it ended with -9")
    assert claim(registry) is None
    base = read(registry)
    assert base.state == "failed"
    assert base.problem == f"what prepared it has died {MOST_ATTEMPTS} times; at last: it ended with -9"


def test_one_that_failed_may_be_added_again(registry: Registry, principal: Principal) -> None:
    add(registry, principal, source="/models/wrong")
    held = claimed(registry)
    with registry.transaction() as session:
        assert preparing.fail(session, held, "there is nothing at /models/wrong", "correct the path")
    with registry.reading() as session:
        assert "second" not in offered.paths(session, registry.settings)
    add(registry, principal, source="/models/right")
    again = claimed(registry)
    assert (again.source, again.id != held.id) == ("/models/right", True)
    assert read(registry).problem is None
    with registry.transaction() as session:
        assert not preparing.fail(session, replace(held, token=again.token), "of the first", None)


def test_a_base_is_not_removed_while_a_job_needs_it(registry: Registry, principal: Principal) -> None:
    add(registry, principal)
    make_ready(registry)
    queued = [submit(registry, principal, base="second") for _ in range(2)]
    claim_job(registry, queued[0])
    for leave_adapters in (False, True):
        with pytest.raises(Conflict, match="need the base 'second': 1 queued, 1 running"):
            remove(registry, principal, leave_adapters=leave_adapters)
    assert read(registry).state == "ready"


def test_what_hangs_on_a_base_is_counted_and_kept(
    registry: Registry, principal: Principal, stranger: Principal
) -> None:
    add(registry, principal)
    make_ready(registry)
    adapter = train(registry, principal)
    train(registry, stranger)
    with registry.transaction() as session:
        aliases.put(session, principal, "mine", {"second": 1}, bases=["osora-tiny", "second"])
    with pytest.raises(Conflict, match=r"hang 2 adapters, 1 alias, which"):
        remove(registry, principal)
    hanging = remove(registry, principal, leave_adapters=True)
    assert (hanging.adapters, hanging.imported, hanging.aliases) == (2, 0, 1)
    with registry.reading() as session:
        assert session.scalars(select(AddedBase)).all() == []
    with pytest.raises(NotFound):
        remove(registry, principal)
    with registry.reading() as session:
        assert adapters.get(session, principal, adapter).base == "second"


def test_one_of_the_settings_is_not_removed(registry: Registry, principal: Principal) -> None:
    with registry.transaction() as session, pytest.raises(Conflict, match="is in OSORA_BASES"):
        adding.remove(session, principal, registry.settings, "osora-tiny", leave_adapters=True)


def test_a_job_and_a_removal_at_once_leave_no_job_without_a_base(registry: Registry, principal: Principal) -> None:
    for _ in range(4):
        add(registry, principal)
        make_ready(registry)
        file = upload(registry, principal).id
        came: list[str] = []

        def either(index: int, file: str = file, came: list[str] = came) -> None:
            try:
                if index:
                    remove(registry, principal)
                else:
                    submit(registry, principal, base="second", training_file=file)
            except (Conflict, InvalidRequest) as error:
                came.append(error.code)
            else:
                came.append("done")

        in_parallel(2, either)
        assert sorted(came) in (["base_in_use", "done"], ["done", "model_not_found"])
        with registry.reading() as session:
            is_there = session.get(AddedBase, "second") is not None
            live = [job for job in jobs.list(session, principal, limit=100).data if not job.is_terminal]
        assert bool(live) == is_there
        with registry.transaction() as session:
            for job in live:
                jobs.cancel(session, principal, job.id)
        if is_there:
            remove(registry, principal)


def test_who_did_it_is_recorded(registry: Registry, principal: Principal) -> None:
    add(registry, principal)
    make_ready(registry)
    remove(registry, principal)
    with registry.reading() as session:
        told = session.scalars(select(AuditRecord).where(AuditRecord.target_kind == "base").order_by(AuditRecord.id))
        assert [(one.action, one.target_id, one.key_id) for one in told] == [
            ("base.added", "second", principal.key_id),
            ("base.removed", "second", principal.key_id),
        ]


def test_only_what_was_converted_of_bases_that_are_there_is_kept(registry: Registry, principal: Principal) -> None:
    add(registry, principal, "smollm2-135m", None)
    with registry.reading() as session:
        (content,) = preparing.contents(session)
    assert len(content) == 64
    make_ready(registry, content=content)
    with registry.reading() as session:
        assert [base.content for base in preparing.ready(session)] == [content]
    with registry.transaction() as session:
        adding.remove(session, principal, registry.settings, "smollm2-135m", leave_adapters=False)
    with registry.reading() as session:
        assert preparing.contents(session) == set()
