"""From the outbox to the broker, right after a commit. Workers relay too: this is only the fast path."""

import logging
import time
from typing import Any

from celery import Celery

from registry import outbox
from registry.context import Registry

logger = logging.getLogger(__name__)

_OUTAGE_SECONDS = 5


class BrokerDownError(Exception):
    """The broker did not answer a moment ago, so it is not asked again yet."""


class Publisher:
    """Sends task messages. Thread-safe; connects when first used."""

    def __init__(self, broker_url: str) -> None:
        self._celery = Celery("osora", broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            broker_connection_timeout=1,
            broker_transport_options={"socket_connect_timeout": 1, "socket_timeout": 2, "max_retries": 0},
            task_ignore_result=True,
        )
        self._down_until = 0.0

    def __call__(self, queue: str, task: str, args: list[str]) -> None:
        """Returns once the broker has the message; raises within about two seconds if it does not take it.

        A thread that relays has other maintenance to do. So during an outage only one call in five seconds waits for
        the broker, and the others raise at once.
        """
        if time.monotonic() < self._down_until:
            raise BrokerDownError("the broker did not answer a moment ago")
        try:
            self._celery.send_task(task, args=args, queue=queue, retry=False)
        except Exception:
            self._down_until = time.monotonic() + _OUTAGE_SECONDS
            raise

    def relay(self, registry: Registry) -> None:
        """Publishes what is due in the outbox. Never raises: what stays behind, a worker relays."""
        try:
            outbox.relay(registry, self)
        except Exception:
            logger.warning("outbox: relaying failed; a worker will do it", exc_info=True)

    def waiting(self, queue: str) -> int:
        """Messages that lie in a queue; raises unless the broker can be reached."""
        with self._connection() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:  # no such queue: nothing was ever sent there, or all of it was read
                return 0

    def ping(self) -> None:
        """Raises unless the broker can be reached."""
        with self._connection() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=1)

    def close(self) -> None:
        """Closes the pooled connections."""
        self._celery.close()

    def _connection(self) -> Any:
        return self._celery.connection_for_write()
