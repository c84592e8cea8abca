"""The outbox: with the job or not at all, each message once, none lost."""

import logging
import threading
from collections import Counter

import pytest
from sqlalchemy import func, select, update

from registry import jobs, outbox
from registry.context import Registry
from registry.jobs import JobRequest
from registry.models import Job, OutboxMessage
from registry.tenants import Principal
from tests.support.jobs import claim, submit, upload
from tests.support.threads import in_parallel


def unpublished(registry: Registry) -> int:
    with registry.reading() as session:
        return session.scalars(select(func.count()).select_from(OutboxMessage)).one()


def test_job_and_message_are_one_transaction(registry: Registry, principal: Principal) -> None:
    training_file = upload(registry, principal).id

    def doomed() -> None:
        with registry.transaction() as session:
            jobs.submit(session, principal, JobRequest("osora-tiny", training_file), registry.settings)
            raise LookupError

    with pytest.raises(LookupError):
        doomed()
    with registry.reading() as session:
        assert jobs.list(session, principal).data == []
    assert unpublished(registry) == 0
    submit(registry, principal, training_file=training_file)
    assert unpublished(registry) == 1


def test_a_message_says_what_to_run_and_where(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    published: list[tuple[str, str, list[str]]] = []
    with registry.transaction() as session:
        assert outbox.relay(session, lambda *message: published.append(message)) == 1
    assert published == [("train.osora-tiny", "osora.train", [job.id])]
    assert unpublished(registry) == 0


def test_relays_at_once_publish_each_message_once(registry: Registry, principal: Principal) -> None:
    training_file = upload(registry, principal).id
    wanted = {submit(registry, principal, training_file=training_file).id for _ in range(30)}
    published: Counter[str] = Counter()
    lock = threading.Lock()

    def publish(queue: str, task: str, args: list[str]) -> None:
        with lock:
            published.update(args)

    def run(index: int) -> None:
        while unpublished(registry):
            with registry.transaction() as session:
                outbox.relay(session, publish, limit=3)

    in_parallel(4, run)
    assert published == Counter(wanted)


def test_a_failing_publish_leaves_its_message_and_the_rest(
    registry: Registry, principal: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    submitted = [submit(registry, principal).id for _ in range(3)]
    published: list[str] = []

    def break_at_the_second(queue: str, task: str, args: list[str]) -> None:
        if len(published) == 1:
            raise ConnectionError("broker is down")
        published.extend(args)

    with caplog.at_level(logging.WARNING), registry.transaction() as session:
        assert outbox.relay(session, break_at_the_second) == 1
    assert "broker is down" in caplog.text
    assert unpublished(registry) == 2
    with registry.transaction() as session:  # held back for a while, so that a dead broker is not hammered
        assert outbox.relay(session, lambda *message: published.extend(message[2])) == 0
        session.execute(update(OutboxMessage).values(available_at=0))
        assert outbox.relay(session, lambda *message: published.extend(message[2])) == 2
    assert published == submitted


def test_reconcile_wakes_jobs_whose_message_got_lost(registry: Registry, principal: Principal) -> None:
    """Of one base: the workers of another do not know whether its queue is empty."""
    lost, waiting, running, fresh = (submit(registry, principal) for _ in range(4))
    claim(registry, running)
    with registry.transaction() as session:
        # The messages of all but `waiting` have been published, those of all but `fresh` long ago.
        session.query(OutboxMessage).where(OutboxMessage.job_id != waiting.id).delete()
        session.execute(update(Job).where(Job.id != fresh.id).values(announced_at=0))
    with registry.transaction() as session:
        assert jobs.reconcile(session, "another-base", older_than_seconds=60) == 0
        assert jobs.reconcile(session, "osora-tiny", older_than_seconds=60) == 1
        assert jobs.reconcile(session, "osora-tiny", older_than_seconds=60) == 0
    with registry.reading() as session:
        assert set(session.scalars(select(OutboxMessage.job_id))) == {lost.id, waiting.id}
