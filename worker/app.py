"""The Celery app. A message is a wake-up for a base, and the database decides what happens."""

from celery import Celery

from registry.outbox import TRAIN_TASK
from registry.settings import Settings
from worker.node import Node


def create_app(settings: Settings) -> Celery:
    """The app, without tasks: enough to publish."""
    app = Celery("osora", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # Redelivery comes from the reaper: a message is done with as soon as it is read.
        task_acks_late=False,
        # A wake-up that lay with a busy worker would be lost to a free one; see `worker.pool`.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A full Redis refuses writes, which kombu calls a channel error: wait for room, do not exit.
        broker_channel_error_retry=True,
        # Without time-outs a half-open socket hangs a consumer for ever.
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
    )
    return app


def add_tasks(app: Celery, node: Node) -> None:
    """Register the one task there is, bound to this process's node."""

    @app.task(name=TRAIN_TASK, shared=False)  # type: ignore[untyped-decorator]
    def train(base: str) -> None:
        node.train(base)
