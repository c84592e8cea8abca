"""The transactional outbox: a message is written with the change it announces, and published afterwards.

The message is a hint; the job's row is the truth. So a message may be lost or come twice, and nothing breaks:
`registry.jobs.reconcile` writes it again, and a second claim finds nothing to claim.
"""

import logging
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.db import now
from registry.models import Job, OutboxMessage

logger = logging.getLogger(__name__)

TRAIN_TASK = "osora.train"
Publish = Callable[[str, str, list[str]], None]
"""Called with queue, task name, arguments; returns once the broker has the message, or raises."""

# While the broker is down, each try may take a second, and on SQLite holds the write lock. So not every time.
_RETRY_SECONDS = 5


def train_queue(base: str) -> str:
    """The queue that the workers of a base listen to."""
    return f"train.{base}"


def enqueue(session: Session, job: Job, *, delay_seconds: float = 0) -> None:
    """Writes a wake-up for a queued job, to be published once the transaction has committed."""
    available_at = now() + delay_seconds
    job.announced_at = available_at
    message = OutboxMessage(
        job_id=job.id, queue=train_queue(job.base), task=TRAIN_TASK, args=[job.id], available_at=available_at
    )
    session.add(message)
    session.flush()


def relay(session: Session, publish: Publish, limit: int = 100) -> int:
    """Publishes messages that are due and returns how many; concurrent relays share the work.

    A publish that raises is logged, and that message and the rest are kept for a later call.
    """
    due = (
        select(OutboxMessage)
        .where(OutboxMessage.available_at <= now())
        .order_by(OutboxMessage.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    messages = session.scalars(due).all()
    for published, message in enumerate(messages):
        try:
            publish(message.queue, message.task, message.args)
        except Exception as error:
            logger.warning("outbox: publishing %s%s failed, will retry: %s", message.task, message.args, error)
            for kept in messages[published:]:
                kept.available_at = now() + _RETRY_SECONDS
            session.flush()
            return published
        session.delete(message)
    session.flush()
    return len(messages)
