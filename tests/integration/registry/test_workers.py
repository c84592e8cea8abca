"""Workers come, are heard of, and go."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from registry import workers
from registry.context import Registry
from registry.models import Worker
from tests.support.threads import in_parallel


def silence(session: Session, worker_id: str, seconds: float) -> None:
    session.execute(update(Worker).where(Worker.id == worker_id).values(seen_at=Worker.seen_at - seconds))


def live(session: Session, base: str) -> list[str]:
    return sorted(worker.id for worker in workers.live(session, base, within_seconds=60))


def test_a_worker_lives_as_long_as_it_is_heard_of(registry: Registry) -> None:
    with registry.transaction() as session:
        workers.seen(session, "a", ["tiny", "big"], 8)
        workers.seen(session, "b", ["big"], 2)
        assert (live(session, "tiny"), live(session, "big"), live(session, "bi")) == (["a"], ["a", "b"], [])
        silence(session, "a", 61)
        assert (live(session, "tiny"), live(session, "big")) == ([], ["b"])
        workers.seen(session, "a", ["big"], 3)
        assert (live(session, "tiny"), live(session, "big")) == ([], ["a", "b"])
        session.expire_all()
        assert {worker.id: worker.slots for worker in workers.live(session, "big", 60)} == {"a": 3, "b": 2}
        workers.gone(session, "a")
        workers.gone(session, "never there")
        assert live(session, "big") == ["b"]


def test_a_first_heartbeat_may_come_twice_at_once(registry: Registry) -> None:
    def work(index: int) -> None:
        with registry.transaction() as session:
            workers.seen(session, "a", ["tiny"], index)

    in_parallel(8, work)
    with registry.reading() as session:
        assert live(session, "tiny") == ["a"]


def test_the_silent_are_forgotten_after_a_day(registry: Registry) -> None:
    with registry.transaction() as session:
        for worker_id, seconds in (("dead", 86_401), ("silent", 86_300), ("live", 0)):
            workers.seen(session, worker_id, ["tiny"], 1)
            silence(session, worker_id, seconds)
        workers.forget_silent(session)
        assert sorted(session.scalars(select(Worker.id))) == ["live", "silent"]
