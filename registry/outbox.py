"""The transactional outbox: a message is written with the change it announces, and published afterwards.

The message is a hint that a base has something to do; which job that is, the rows say. So a message may be lost or come
twice, and nothing breaks: `registry.jobs.reconcile` writes it again, and one too many finds nothing to claim.
"""

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from registry.context import Registry
from registry.db import now
from registry.models import Job, OutboxMessage

logger = logging.getLogger(__name__)

TRAIN_TASK = "osora.train"
Publish = Callable[[str, str, list[str]], None]
"""Called with queue, task name, arguments; returns once the broker has the message, or raises."""

# A relay that died while it published is given up after this long. It may have published: then the message comes twice.
_RETAKE_SECONDS = 10
# While the broker is down, each try may take a second or two. So not every time.
_RETRY_SECONDS = 5

_IS_DUE = OutboxMessage.available_at <= now()


def train_queue(base: str) -> str:
    """The queue that the workers of a base listen to."""
    return f"train.{base}"


def enqueue(session: Session, job: Job, *, delay_seconds: float = 0) -> None:
    """Writes a wake-up for a queued job, to be published once the transaction has committed."""
    job.announced_at = now() + delay_seconds
    _write(session, job, delay_seconds)


def wake(session: Session, job: Job) -> None:
    """Writes one more wake-up for a queued job, which is due when it was."""
    _write(session, job, 0)


def _write(session: Session, job: Job, delay_seconds: float) -> None:
    message = OutboxMessage(
        job_id=job.id,
        queue=train_queue(job.base),
        task=TRAIN_TASK,
        args=[job.base],
        available_at=now() + delay_seconds,
    )
    session.add(message)
    session.flush()


def relay(registry: Registry, publish: Publish, limit: int = 100) -> int:
    """Publishes messages that are due and returns how many; concurrent relays share the work.

    No transaction is open meanwhile, so a broker that hangs holds no lock. A publish that raises is logged, and that
    message and the rest are kept for a later call.
    """
    # Looking first leaves SQLite's one write lock to those that have something to write.
    with registry.reading() as session:
        if not session.scalars(select(exists().where(_IS_DUE))).one():
            return 0
    with registry.transaction() as session:
        messages = _take(session, limit)
    published: list[int] = []
    for message in messages:
        try:
            publish(message.queue, message.task, message.args)
        except Exception as error:
            logger.warning("outbox: publishing %s%s failed, will retry: %s", message.task, message.args, error)
            break
        published.append(message.id)
    kept = [message.id for message in messages[len(published) :]]
    if messages:
        with registry.transaction() as session:
            session.execute(delete(OutboxMessage).where(OutboxMessage.id.in_(published)))
            session.execute(
                update(OutboxMessage).where(OutboxMessage.id.in_(kept)).values(available_at=now() + _RETRY_SECONDS)
            )
    return len(published)


def _take(session: Session, limit: int) -> Sequence[OutboxMessage]:
    """Messages that are due, held back from other relays for as long as this one should need."""
    due = select(OutboxMessage).where(_IS_DUE).order_by(OutboxMessage.id).limit(limit).with_for_update(skip_locked=True)
    messages = session.scalars(due).all()
    taken = [message.id for message in messages]
    session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.id.in_(taken))
        .values(available_at=now() + _RETAKE_SECONDS)
        .execution_options(synchronize_session=False)
    )
    return messages
