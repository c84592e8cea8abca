"""Delivers what is due, beside the requests of this process. Any number of processes may: each claims its own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import anyio
from anyio.abc import TaskGroup
from fastapi.concurrency import run_in_threadpool

from api.webhooks.sender import Sender
from registry import webhooks
from registry.context import Registry
from registry.outages import first_line
from registry.tenants import Principal
from registry.webhooks import Answer, Delivery, EventType

logger = logging.getLogger(__name__)

_AT_ONCE = 64
_PAUSE_AFTER_TROUBLE_SECONDS = 5.0
_GRACE_SECONDS = 2.0


class Courier:
    """Claims deliveries, sends and settles them, until it is stopped."""

    def __init__(self, registry: Registry, sender: Sender, tasks: TaskGroup) -> None:
        self._registry = registry
        self._sender = sender
        self._tasks = tasks
        self._under_way = 0
        self._stopping = False
        self._changed = asyncio.Event()
        """Set when a delivery has ended, so that its endpoint may have its next, and when it is time to stop."""
        self._tests: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    @asynccontextmanager
    async def working(cls, registry: Registry) -> AsyncIterator["Courier"]:
        """A courier at work. At exit, what is under way has a moment to end; another process takes over the rest."""
        sender = Sender(allow_private=registry.settings.webhooks_allow_private)
        try:
            # Cancelled as a group, it still waits for what a thread is doing with the database.
            async with anyio.create_task_group() as tasks:
                courier = cls(registry, sender, tasks)
                tasks.start_soon(courier._work)
                try:
                    yield courier
                finally:
                    await courier._stop()
                    tasks.cancel_scope.cancel()
        finally:
            await sender.close()

    async def test(self, principal: Principal, endpoint_id: str, type: EventType) -> Answer:
        """Sends a sample at once, whether or not the endpoint is enabled. Raises `NotFound`.

        Of a tenant one at a time: who asks for many waits for its own.
        """
        delivery = await run_in_threadpool(self._sample, principal, endpoint_id, type)
        turn = self._tests.setdefault(principal.tenant_id, asyncio.Lock())
        async with turn:
            return await self._sender.send(delivery)

    async def _work(self) -> None:
        while not self._stopping:
            self._changed.clear()
            try:
                claimed = await run_in_threadpool(self._claim)
            except Exception as error:
                logger.warning("webhooks wait: %s", first_line(error))
                await self._pause(_PAUSE_AFTER_TROUBLE_SECONDS)
                continue
            for delivery in claimed:
                self._under_way += 1
                self._tasks.start_soon(self._deliver, delivery)
            if not claimed:
                await self._pause(self._registry.settings.maintenance_seconds)

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    async def _stop(self) -> None:
        self._stopping = True
        self._changed.set()
        with anyio.move_on_after(_GRACE_SECONDS):
            while self._under_way:
                self._changed.clear()
                await self._changed.wait()

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            answer = await self._sender.send(delivery)
            await run_in_threadpool(self._settle, delivery, answer)
            if answer.error is not None:
                # Never the URL: those of some receivers are as good as a password.
                logger.info("webhook %s to %s: %s", delivery.id, delivery.endpoint_id, answer.error)
        except Exception as error:
            # Its lease ends, and it is sent again: better twice than never.
            logger.warning("webhook %s: what came of it is not written down: %s", delivery.id, first_line(error))
        finally:
            self._under_way -= 1
            self._changed.set()

    def _claim(self) -> list[Delivery]:
        room = _AT_ONCE - self._under_way
        # Looking first leaves SQLite's one write lock to those that have something to write.
        with self._registry.reading() as session:
            if room == 0 or not webhooks.any_due(session):
                return []
        with self._registry.transaction() as session:
            return webhooks.claim(session, room)

    def _settle(self, delivery: Delivery, answer: Answer) -> None:
        with self._registry.transaction() as session:
            webhooks.settle(session, delivery, answer)

    def _sample(self, principal: Principal, endpoint_id: str, type: EventType) -> Delivery:
        with self._registry.reading() as session:
            return webhooks.sample(session, principal, endpoint_id, type)
