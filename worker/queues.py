"""Celery's queues, one a base, that a running worker begins and ceases to listen to."""

import logging
from typing import Any

from registry.outbox import train_queue

logger = logging.getLogger(__name__)


class Queues:
    """Those of a Celery worker. For any thread: what is asked for happens on the thread that reads messages."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def listen(self, base: str) -> None:
        """Read the wake-ups of a base as well, also after the broker was away."""
        self._soon(self._add, train_queue(base))

    def ignore(self, base: str) -> None:
        """Read them no more."""
        self._soon(self._cancel, train_queue(base))

    def _soon(self, change: Any, queue: str) -> None:
        consumer = self._worker.consumer
        consumer.call_soon(change, consumer, queue)

    @staticmethod
    def _add(consumer: Any, queue: str) -> None:
        if consumer.task_consumer is None:  # not connected: all that are selected are read when it is again
            consumer.app.amqp.queues.select_add(queue, exchange=queue, exchange_type="direct")
        else:
            consumer.add_task_queue(queue)

    @staticmethod
    def _cancel(consumer: Any, queue: str) -> None:
        if consumer.task_consumer is None:
            consumer.app.amqp.queues.deselect(queue)
        elif queue in consumer.app.amqp.queues.consume_from:
            consumer.cancel_task_queue(queue)
