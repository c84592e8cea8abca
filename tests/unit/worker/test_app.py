"""What the queue may bring."""

import pickle
from pathlib import Path
from typing import Any

from kombu import Exchange, Queue
from kombu.exceptions import ContentDisallowed
from kombu.serialization import prepare_accept_content

from registry.publisher import Publisher
from registry.settings import Settings
from worker.app import create_app


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_a_pickle_in_the_queue_is_not_opened(broker_url: str, tmp_path: Path) -> None:
    """A worker's own consumer, on a real broker that somebody has written into."""
    app = create_app(Settings(broker_url=broker_url))
    assert prepare_accept_content(app.conf.accept_content) == {"application/json"}
    queue = Queue("trapped", Exchange("trapped"), routing_key="trapped")
    errors: list[Exception] = []
    with app.connection_for_read() as connection:
        connection.Producer().publish(
            pickle.dumps(Trap(tmp_path / "trapped")),
            content_type="application/x-python-serialize",
            content_encoding="binary",
            exchange=queue.exchange,
            routing_key="trapped",
            declare=[queue],
        )
        with app.amqp.TaskConsumer(
            connection.channel(), queues=[queue], on_decode_error=lambda message, error: errors.append(error)
        ):
            connection.drain_events(timeout=60)
    assert [type(error) for error in errors] == [ContentDisallowed]
    assert not (tmp_path / "trapped").exists()


def test_what_the_api_publishes_is_json(broker_url: str) -> None:
    publisher = Publisher(broker_url)
    assert publisher._celery.conf.task_serializer == "json"
    assert prepare_accept_content(publisher._celery.conf.accept_content) == {"application/json"}
    publisher.close()


def test_the_trap_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "trapped")))
    assert (tmp_path / "trapped").exists()
