"""Webhooks in the registry: written with the change, taken once and in turns, tried for three days."""

import json
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy import update as change

from registry import jobs, retention, webhooks
from registry.context import Registry
from registry.db import now, now_seconds
from registry.errors import Conflict, NotFound
from registry.names import aliases
from registry.server_secrets import ServerSecrets
from registry.tenants import Principal
from registry.webhooks import Answer, Delivery, EventType
from registry.webhooks.delivering import LEASE_SECONDS, MAX_ATTEMPTS, PER_TENANT
from registry.webhooks.endpoints import MAX_ENDPOINTS, MAX_OLD_SECRETS
from registry.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tests.support.jobs import claim as claim_job
from tests.support.jobs import new_adapter, submit
from tests.support.threads import in_parallel
from tests.support.webhooks import pass_time

DAY = 86_400
GOOD = Answer(0.1, 200)
BAD = Answer(0.1, 500, "it answered 500")


def endpoint(
    registry: Registry, principal: Principal, *types: EventType, url: str = "https://hooks.example.com/osora"
) -> str:
    with registry.transaction() as session:
        wanted = types or webhooks.EVENT_TYPES
        return webhooks.create(session, principal, registry.settings, name="test", url=url, event_types=wanted).id


def state(registry: Registry, principal: Principal, endpoint_id: str) -> WebhookEndpoint:
    with registry.reading() as session:
        return webhooks.get(session, principal, endpoint_id)


def update(registry: Registry, principal: Principal, endpoint_id: str, **changes: Any) -> WebhookEndpoint:
    with registry.transaction() as session:
        return webhooks.update(session, principal, registry.settings, endpoint_id, **changes)


def tell(registry: Registry, principal: Principal, number: int = 1) -> None:
    for index in range(number):
        with registry.transaction() as session:
            webhooks.record(session, principal.tenant_id, "fine_tuning.job.failed", {"id": f"ftjob-{index}"})


def claim(registry: Registry, limit: int = 100) -> list[Delivery]:
    with registry.transaction() as session:
        return webhooks.claim(session, limit)


def settle(registry: Registry, delivery: Delivery, answer: Answer) -> None:
    with registry.transaction() as session:
        webhooks.settle(session, delivery, answer)


def log(registry: Registry, principal: Principal, endpoint_id: str) -> list[WebhookDelivery]:
    with registry.reading() as session:
        return list(webhooks.deliveries(session, principal, endpoint_id, order="asc").data)


def clock(registry: Registry) -> float:
    with registry.reading() as session:
        return session.scalars(select(now())).one()


def make_old(registry: Registry, days: float) -> None:
    with registry.transaction() as session:
        session.execute(change(WebhookDelivery).values(created_at=now_seconds() - round(days * DAY)))


def event_types(registry: Registry, principal: Principal, endpoint_id: str) -> list[str]:
    return [delivery.event_type for delivery in log(registry, principal, endpoint_id)]


def complete(registry: Registry, principal: Principal) -> jobs.Attempt:
    attempt = claim_job(registry, submit(registry, principal))
    with registry.transaction() as session:
        jobs.complete(session, attempt, step=9, trained_tokens=9, adapter=new_adapter(attempt), metrics={})
    return attempt


def test_what_becomes_of_jobs_is_told(registry: Registry, principal: Principal) -> None:
    everything = endpoint(registry, principal)
    failures = endpoint(registry, principal, "fine_tuning.job.failed")
    complete(registry, principal)
    assert event_types(registry, principal, everything) == ["adapter.published", "fine_tuning.job.succeeded"]
    paused, cancelled = submit(registry, principal), submit(registry, principal)
    with registry.transaction() as session:
        jobs.pause(session, principal, paused.id)
        jobs.cancel(session, principal, cancelled.id)
    broken = claim_job(registry, submit(registry, principal))
    with registry.transaction() as session:
        fault: Any = {"code": "x", "message": "y", "param": None, "fault": "user", "next_action": None}
        jobs.fail(session, broken, fault)
    assert event_types(registry, principal, everything)[2:] == [
        "fine_tuning.job.paused",
        "fine_tuning.job.cancelled",
        "fine_tuning.job.failed",
    ]
    (failed,) = log(registry, principal, failures)
    assert (failed.event_type, failed.data) == ("fine_tuning.job.failed", {"id": broken.job_id})
    (other,) = (row for row in log(registry, principal, everything) if row.event_type == failed.event_type)
    assert other.event_id == failed.event_id  # one event, told twice
    assert other.id != failed.id


def test_what_becomes_of_an_alias_is_told(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal, "alias.changed")
    bases = {"osora-tiny", "other"}
    for base in sorted(bases):
        with registry.transaction() as session:
            aliases.put(session, principal, "triage", {base: 1}, bases=bases)
    with registry.transaction() as session:
        aliases.rollback(session, principal, "triage", bases=bases)
        aliases.remove(session, principal, "triage")
    versions = [(row.event_type, row.data["id"], row.data["version"]) for row in log(registry, principal, told)]
    assert versions == [("alias.changed", "triage", version) for version in (1, 2, 3, 4)]


def test_a_change_that_is_rolled_back_is_not_told(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    job = submit(registry, principal)

    def doomed() -> None:
        with registry.transaction() as session:
            jobs.cancel(session, principal, job.id)
            raise LookupError

    with pytest.raises(LookupError):
        doomed()
    assert log(registry, principal, told) == []


def test_nobody_hears_of_another_tenants_jobs(registry: Registry, principal: Principal, stranger: Principal) -> None:
    theirs = endpoint(registry, stranger)
    complete(registry, principal)
    assert log(registry, stranger, theirs) == []
    assert claim(registry) == []


def test_a_foreign_endpoint_is_not_there(registry: Registry, principal: Principal, stranger: Principal) -> None:
    mine = endpoint(registry, principal)
    tell(registry, principal)
    (told,) = log(registry, principal, mine)
    theirs = endpoint(registry, stranger)
    with registry.transaction() as session:
        for asked in (
            lambda: webhooks.get(session, stranger, mine),
            lambda: webhooks.update(session, stranger, registry.settings, mine, name="x"),
            lambda: webhooks.delete(session, stranger, mine),
            lambda: webhooks.rotate_secret(session, stranger, mine, keep_old=False),
            lambda: webhooks.deliveries(session, stranger, mine),
            lambda: webhooks.sample(session, stranger, mine, "fine_tuning.job.failed"),
            lambda: webhooks.list(session, stranger, after=mine),
            lambda: webhooks.deliveries(session, stranger, theirs, after=told.id),
        ):
            with pytest.raises(NotFound):
                asked()
        assert [row.id for row in webhooks.list(session, stranger).data] == [theirs]


def test_the_body_is_the_same_at_every_attempt(registry: Registry, principal: Principal) -> None:
    endpoint(registry, principal)
    tell(registry, principal)
    (first,) = claim(registry)
    body = json.loads(first.body)
    assert body.keys() == {"id", "object", "created_at", "type", "data"}
    assert (body["object"], body["type"], body["data"]) == ("event", "fine_tuning.job.failed", {"id": "ftjob-0"})
    settle(registry, first, BAD)
    with registry.transaction() as session:
        session.execute(change(WebhookDelivery).values(due_at=0))
    (second,) = claim(registry)
    assert (second.id, second.body, second.attempt) == (first.id, first.body, 2)


def test_a_claim_is_a_lease(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    tell(registry, principal)
    (lost,) = claim(registry)
    assert claim(registry) == []
    pass_time(registry, LEASE_SECONDS + 1)
    (again,) = claim(registry)
    assert (again.id, again.attempt) == (lost.id, 2)
    settle(registry, lost, BAD)  # a process that was only slow: its word does not count any more
    settle(registry, again, GOOD)
    (row,) = log(registry, principal, told)
    assert row.status == "delivered"
    assert [(attempt["number"], attempt["status_code"]) for attempt in row.attempts] == [(1, None), (2, 200)]
    assert "ended before it knew" in row.attempts[0]["error"]


def test_processes_at_once_claim_each_delivery_once(registry: Registry, principal: Principal) -> None:
    for _ in range(PER_TENANT):
        endpoint(registry, principal)
    tell(registry, principal, 5)
    claimed: Counter[str] = Counter()
    under_way: Counter[str] = Counter()
    lock = threading.Lock()

    def work(_: int) -> None:
        while True:
            taken = claim(registry, limit=2)
            with lock:
                claimed.update(delivery.id for delivery in taken)
                under_way.update(delivery.endpoint_id for delivery in taken)
                assert not [one for one, number in under_way.items() if number > 1]
            for delivery in taken:
                with lock:  # before others may claim the endpoint's next
                    under_way[delivery.endpoint_id] -= 1
                settle(registry, delivery, GOOD)
            with registry.reading() as session:
                if session.scalars(select(func.count()).where(WebhookDelivery.status == "pending")).one() == 0:
                    return

    in_parallel(4, work)
    assert len(claimed) == 5 * PER_TENANT
    assert set(claimed.values()) == {1}


def test_a_slow_tenant_holds_up_its_own_only(registry: Registry, principal: Principal, stranger: Principal) -> None:
    for _ in range(PER_TENANT + 3):
        endpoint(registry, stranger)
    tell(registry, stranger, 50)
    mine = endpoint(registry, principal)
    tell(registry, principal)
    taken = claim(registry)
    assert len(taken) == PER_TENANT + 1
    assert len({delivery.endpoint_id for delivery in taken}) == len(taken)  # of an endpoint one at a time
    assert mine in {delivery.endpoint_id for delivery in taken}
    assert claim(registry) == []
    settle(registry, next(delivery for delivery in taken if delivery.endpoint_id != mine), GOOD)
    assert len(claim(registry)) == 1


def test_who_has_nothing_under_way_comes_first(registry: Registry, principal: Principal, stranger: Principal) -> None:
    """However long another's have waited, and however little room a process has."""
    theirs = [endpoint(registry, stranger) for _ in range(3)]
    tell(registry, stranger)
    assert {delivery.endpoint_id for delivery in claim(registry, limit=1)} < set(theirs)
    mine = endpoint(registry, principal)
    tell(registry, principal)
    assert [delivery.endpoint_id for delivery in claim(registry, limit=1)] == [mine]


def test_an_endpoints_events_come_in_order(registry: Registry, principal: Principal) -> None:
    endpoint(registry, principal)
    tell(registry, principal, 3)
    seen = []
    while taken := claim(registry):
        seen.append(json.loads(taken[0].body)["data"]["id"])
        settle(registry, taken[0], GOOD)
    assert seen == ["ftjob-0", "ftjob-1", "ftjob-2"]


def test_three_days_of_failures(registry: Registry, principal: Principal) -> None:
    """Each attempt when it is due and not before; then the delivery is given up, and the endpoint disabled."""
    told = endpoint(registry, principal)
    tell(registry, principal)
    waited, attempts = 0.0, 0
    while True:
        before = clock(registry)
        taken = claim(registry)
        attempts += len(taken)
        for delivery in taken:
            settle(registry, delivery, BAD)
        (row,) = log(registry, principal, told)
        if row.status != "pending":
            break
        pause = row.due_at - before
        assert pause > 0
        assert state(registry, principal, told).disabled_at is None
        pass_time(registry, pause - 60)  # a minute early, which is longer than the machine may take to ask
        assert claim(registry) == []
        pass_time(registry, 60)
        waited += pause
    assert row.status == "failed"
    assert [attempt["number"] for attempt in row.attempts] == list(range(1, attempts + 1))
    assert (waited > 3 * DAY, waited < 3.5 * DAY, attempts) == (True, True, MAX_ATTEMPTS)
    found = state(registry, principal, told)
    assert (found.disabled_because, found.disabled_at is not None) == ("failures", True)
    tell(registry, principal)  # nobody is there to be told
    assert len(log(registry, principal, told)) == 1


def test_one_success_clears_an_endpoint(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    tell(registry, principal, 2)
    (first,) = claim(registry)
    settle(registry, first, BAD)
    assert state(registry, principal, told).failing_since is not None
    (second,) = claim(registry)
    settle(registry, second, GOOD)
    assert state(registry, principal, told).failing_since is None
    assert [row.status for row in log(registry, principal, told)] == ["pending", "delivered"]


def test_who_is_gone_is_asked_no_more(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    tell(registry, principal)
    (delivery,) = claim(registry)
    settle(registry, delivery, Answer(0.1, 410, "it answered 410"))
    assert state(registry, principal, told).disabled_because == "gone"
    pass_time(registry, DAY)
    assert claim(registry) == []
    with registry.reading() as session:
        assert not webhooks.any_due(session)
    update(registry, principal, told, url="https://elsewhere.example.com/")
    (delivery,) = claim(registry)  # what waited goes where it is asked for now
    assert delivery.url == "https://elsewhere.example.com/"


def test_by_hand_off_and_on_again(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    tell(registry, principal)
    assert update(registry, principal, told, enabled=False).disabled_because == "owner"
    assert claim(registry) == []
    assert update(registry, principal, told, url="https://elsewhere.example.com/").disabled_because == "owner"
    assert update(registry, principal, told, enabled=True).disabled_because is None
    assert len(claim(registry)) == 1


def test_unchanged_is_not_updated(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    with registry.transaction() as session:
        session.execute(change(WebhookEndpoint).values(updated_at=7))
    same = state(registry, principal, told)
    assert update(registry, principal, told, name=same.name, url=same.url, enabled=True).updated_at == 7
    assert update(registry, principal, told, name="another").updated_at > 7


def test_rotation_keeps_the_old_secret_for_a_day(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    tell(registry, principal, 4)
    (first,) = claim(registry)
    settle(registry, first, GOOD)
    with registry.transaction() as session:
        webhooks.rotate_secret(session, principal, told, keep_old=True)
    (second,) = claim(registry)
    settle(registry, second, GOOD)
    assert (len(first.secrets), second.secrets[1:]) == (1, first.secrets)
    assert second.secrets[0] != first.secrets[0]
    pass_time(registry, DAY + 1)
    (third,) = claim(registry)
    settle(registry, third, GOOD)
    assert third.secrets == second.secrets[:1]
    with registry.transaction() as session:
        webhooks.rotate_secret(session, principal, told, keep_old=False)
    (fourth,) = claim(registry)
    assert len(fourth.secrets) == 1
    assert fourth.secrets != third.secrets


def test_every_secret_that_was_kept_signs_for_its_day(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)

    def rotate(*, keep_old: bool) -> None:
        with registry.transaction() as session:
            webhooks.rotate_secret(session, principal, told, keep_old=keep_old)

    def signing() -> tuple[str, ...]:
        tell(registry, principal)
        (delivery,) = claim(registry)
        settle(registry, delivery, GOOD)
        return delivery.secrets

    kept = signing()
    for age in range(1, MAX_OLD_SECRETS + 1):
        rotate(keep_old=True)
        signed = signing()
        assert (len(signed), signed[1:]) == (age + 1, kept)
        kept = signed
        pass_time(registry, 3600)
    with pytest.raises(Conflict, match="old secrets"):
        rotate(keep_old=True)
    assert signing() == kept
    pass_time(registry, DAY - MAX_OLD_SECRETS * 3600 + 1)
    assert signing() == kept[:-1]
    rotate(keep_old=True)
    assert signing()[1:] == kept[:-1]
    rotate(keep_old=False)
    assert len(signing()) == 1


def test_the_database_holds_no_secret(registry: Registry, principal: Principal) -> None:
    endpoint(registry, principal)
    tell(registry, principal)
    (delivery,) = claim(registry)
    secret = delivery.secrets[0].removeprefix("whsec_")
    with registry.reading() as session:
        columns = session.execute(select(WebhookEndpoint.__table__)).one()
    assert not any(secret in str(value) for value in columns)
    assert secret not in repr(delivery)
    other = replace(
        registry,
        sessions=registry.sessions.__class__(registry.engine, info={"server_secrets": ServerSecrets("another")}),
    )
    pass_time(registry, LEASE_SECONDS + 1)
    assert claim(other)[0].secrets != delivery.secrets


def test_deleting_with_a_delivery_under_way(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    tell(registry, principal, 2)
    (delivery,) = claim(registry)
    with registry.transaction() as session:
        webhooks.delete(session, principal, told)
    settle(registry, delivery, GOOD)
    tell(registry, principal)
    assert claim(registry) == []


def test_deleting_does_not_take_a_job_with_it(registry: Registry, principal: Principal) -> None:
    """Endpoints that come and go while jobs end: every job ends."""
    submitted = [submit(registry, principal) for _ in range(10)]
    told = [endpoint(registry, principal) for _ in range(10)]

    def work(index: int) -> None:
        for number in range(5):
            with registry.transaction() as session:
                if index == 0:
                    jobs.cancel(session, principal, submitted[number].id)
                elif index == 1:
                    jobs.cancel(session, principal, submitted[9 - number].id)
                else:
                    webhooks.delete(session, principal, told[(index - 2) * 5 + number])

    in_parallel(4, work)
    with registry.reading() as session:
        assert {job.status for job in jobs.list(session, principal).data} == {"cancelled"}
        assert session.scalars(select(func.count()).select_from(WebhookDelivery)).one() == 0


def test_there_is_an_end_to_endpoints(registry: Registry, principal: Principal, stranger: Principal) -> None:
    for _ in range(MAX_ENDPOINTS):
        endpoint(registry, principal)
    with pytest.raises(Conflict, match=f"{MAX_ENDPOINTS} webhook endpoints"):
        endpoint(registry, principal)
    endpoint(registry, stranger)


def test_the_log_ends_where_retention_says(registry: Registry, principal: Principal) -> None:
    told = endpoint(registry, principal)
    tell(registry, principal, 2)
    (first,) = claim(registry)
    settle(registry, first, GOOD)
    make_old(registry, 6)
    assert retention.expire(registry) == 0
    make_old(registry, 8)
    assert retention.expire(registry) == 1
    (left,) = log(registry, principal, told)
    assert left.status == "pending"  # still to be told
    update(registry, principal, told, enabled=False)
    assert retention.expire(registry) == 1  # nobody wants to know any more
