"""An attempt's way to the registry: fenced writes and stored objects, through whatever outages there are."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from registry import jobs
from registry.context import Registry
from registry.jobs import Attempt
from registry.models import EventLevel
from registry.outages import OUTAGES, first_line
from worker.patience import Patience

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Records:
    """Writes on behalf of one attempt. Each raises `LeaseLostError` once the job is no longer the attempt's."""

    def __init__(self, registry: Registry, attempt: Attempt, patience: Patience) -> None:
        self.settings = registry.settings
        self.store = registry.store
        self.attempt = attempt
        self._registry = registry
        self._patience = patience

    def write(self, action: Callable[[Session], T]) -> T:
        """A fenced write, tried until the database takes it: an outage is waited out, a lost lease is not."""

        def write() -> T:
            with self._registry.transaction() as session:
                return action(session)

        return self._patience(write)

    def say(self, message: str, level: EventLevel = "info", data: dict[str, Any] | None = None) -> None:
        """Add a line to the job's history."""
        self.write(lambda session: jobs.add_event(session, self.attempt, message, level=level, data=data))

    def stored(self, action: Callable[[], T]) -> T:
        """An action on the object store, tried until it works; the job's history says that it waits."""
        return self._patience(action, on_wait=lambda: self.say("Waiting for the object store", "warn"))

    def fetch(self, key: str) -> bytes:
        """The object of that key. Raises `NotFound`."""
        return self.stored(lambda: self.store.get(key))

    def delete(self, key: str) -> None:
        """Delete an object that no row names any more; during an outage it is left as an orphan."""
        try:
            self.store.delete(key)
        except OUTAGES as error:
            logger.info("%s is left for `delete_orphans`: %s", key, first_line(error))
