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


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a relay has taken, or failed to publish, is held back for longer than any pause of the machine."""
    for name in ("_RETAKE_SECONDS", "_RETRY_SECONDS"):
        monkeypatch.setattr(outbox, name, 3600)


def unpublished(registry: Registry) -> int:
    with registry.reading() as session:
        return session.scalars(select(func.count()).select_from(OutboxMessage)).one()


def make_due(registry: Registry) -> None:
    with registry.transaction() as session:
        session.execute(update(OutboxMessage).values(available_at=0))


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
    submit(registry, principal)
    published: list[tuple[str, str, list[str]]] = []
    assert outbox.relay(registry, lambda *message: published.append(message)) == 1
    assert published == [("train.osora-tiny", "osora.train", ["osora-tiny"])]
    assert unpublished(registry) == 0


def test_relays_at_once_publish_each_message_once(registry: Registry, principal: Principal) -> None:
    training_file = upload(registry, principal).id
    for _ in range(30):
        submit(registry, principal, training_file=training_file)
    published: Counter[str] = Counter()
    lock = threading.Lock()

    def publish(queue: str, task: str, args: list[str]) -> None:
        with lock:
            published.update(args)

    def run(index: int) -> None:
        while unpublished(registry):
            outbox.relay(registry, publish, limit=3)

    in_parallel(4, run)
    assert published == {"osora-tiny": 30}


def test_a_failing_publish_leaves_its_message_and_the_rest(
    registry: Registry, principal: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        submit(registry, principal)
    published: list[str] = []

    def break_at_the_second(queue: str, task: str, args: list[str]) -> None:
        if len(published) == 1:
            raise ConnectionError("broker is down")
        published.extend(args)

    with caplog.at_level(logging.WARNING):
        assert outbox.relay(registry, break_at_the_second) == 1
    assert "broker is down" in caplog.text
    assert unpublished(registry) == 2
    # Held back for a while, so that a dead broker is not hammered.
    assert outbox.relay(registry, lambda *message: published.extend(message[2])) == 0
    make_due(registry)
    assert outbox.relay(registry, lambda *message: published.extend(message[2])) == 2
    assert published == ["osora-tiny"] * 3


def test_no_lock_is_held_while_the_broker_is_asked(registry: Registry, principal: Principal) -> None:
    """On SQLite another writer would wait for the relay, and here the relay for it."""
    submit(registry, principal)
    training_file = upload(registry, principal).id

    def publish(*message: object) -> None:
        submit(registry, principal, training_file=training_file)

    assert outbox.relay(registry, publish) == 1
    assert unpublished(registry) == 1


@pytest.mark.parametrize("published", [True, False])
def test_a_relay_that_dies_is_taken_over_after_a_while(
    registry: Registry, principal: Principal, published: bool
) -> None:
    """It may have published and not come to say so: then the message goes out twice."""
    submit(registry, principal)
    told: list[str] = []

    class Killed(BaseException):
        pass

    def die(queue: str, task: str, args: list[str]) -> None:
        if published:
            told.extend(args)
        raise Killed

    with pytest.raises(Killed):
        outbox.relay(registry, die)
    assert outbox.relay(registry, lambda *message: told.extend(message[2])) == 0
    make_due(registry)
    assert outbox.relay(registry, lambda *message: told.extend(message[2])) == 1
    assert told == ["osora-tiny"] * (1 + published)
    assert unpublished(registry) == 0


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
