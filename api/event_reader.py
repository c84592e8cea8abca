"""One reader of events for all who follow jobs in this process: they cost the database what one of them would.

A watcher has read the first page of what was before it came, and reads further ones by itself; from there on the reader
tells it. One that does not keep up is told no more, and reads again what it missed.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
from fastapi.sse import format_sse_event
from sqlalchemy.orm import Session

from api.beside import working_beside
from api.jobs.schemas import EventOut, JobOut
from registry import jobs
from registry.context import Registry
from registry.errors import RateLimited, Unavailable
from registry.jobs.following import news
from registry.models import JobEvent
from registry.outages import first_line
from registry.tenants import Principal

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.3
BATCH = 500
_LONGEST_QUEUE = 1000
_OUTAGE_SECONDS = 1.0
_THREADS_FOR_PAGES = 4

Item = tuple[int, bytes]
"""The id of an event, and what is sent of it."""


@dataclass(eq=False)
class Watcher:
    """Somebody who follows a job."""

    of: "_Followed"
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is something to do."""
    items: deque[Item] = field(default_factory=deque)
    is_behind: bool = False
    """Whether it is to read for itself what comes after the last that it has sent."""
    done: bytes | None = None
    """What is sent last, once the job has ended; empty if it is gone."""
    is_over: bool = False
    """Whether to end without `done`: the service stops, or the key has ended."""

    def begin_reading(self) -> None:
        """It reads for itself now: from here on it is told what comes meanwhile."""
        self.items.clear()
        self.is_behind = False

    def has_read(self, position: int) -> None:
        """It has, up to this event: where the reader had begun beyond it, there is more to read."""
        if position < self.of.begins(position):
            self.is_behind = True

    def tell(self, items: Sequence[Item]) -> None:
        """Adds items, unless there are too many by now."""
        self.items.extend(items)
        if len(self.items) > _LONGEST_QUEUE:
            self.items.clear()
            self.is_behind = True
        self.changed.set()

    def end(self, done: bytes | None) -> None:
        """There is nothing to come but this, or nothing at all."""
        self.done = done
        self.is_over = self.is_over or done is None
        self.changed.set()


@dataclass
class _Followed:
    """A job that somebody follows."""

    principal: Principal
    """Any of those who follow it: all are of its tenant, and see the same."""
    begun_at: int | None = None
    """The event after which the reader began; None before the first watcher has read so far."""
    position: int = 0
    watchers: set[Watcher] = field(default_factory=set)

    def begins(self, position: int) -> int:
        """Where the reader began; if it has not yet, it does so after this event."""
        if self.begun_at is None:
            self.begun_at = self.position = position
        return self.begun_at


@dataclass(frozen=True)
class Page:
    """What a watcher has read of a job's events."""

    items: Sequence[Item]
    position: int
    """The last event that it knows."""
    has_more: bool


class EventReader:
    """Reads what is new of all jobs that somebody follows."""

    def __init__(self, registry: Registry, *, most: int, most_of_tenant: int) -> None:
        self._registry = registry
        self._most = most
        self._most_of_tenant = most_of_tenant
        self._followed: dict[str, _Followed] = {}
        self._is_ending = False
        self._of_tenants: Counter[str] = Counter()
        self._has_work = asyncio.Event()
        self._thread = anyio.CapacityLimiter(1)
        self._threads_for_pages = anyio.CapacityLimiter(_THREADS_FOR_PAGES)

    @classmethod
    @asynccontextmanager
    async def working(cls, registry: Registry) -> AsyncIterator["EventReader"]:
        """One that reads until the exit."""
        settings = registry.settings
        reader = cls(registry, most=settings.event_streams, most_of_tenant=settings.event_streams_per_tenant)
        async with working_beside(reader._read):
            yield reader

    @contextmanager
    def watching(self, principal: Principal, job_id: str, *, after: int, has_more: bool) -> Iterator[Watcher]:
        """A place among those who follow the tenant's job, for one that knows its events up to `after`, and whether
        there are more. Raises `RateLimited` or `Unavailable`."""
        tenant = principal.tenant_id
        self.require_room(principal)
        followed = self._followed.setdefault(job_id, _Followed(principal))
        watcher = Watcher(followed, is_over=self._is_ending)
        if has_more:
            watcher.is_behind = True
        else:
            followed.begins(after)
            watcher.is_behind = after < followed.position  # others were told of more meanwhile
        followed.watchers.add(watcher)
        self._of_tenants[tenant] += 1
        self._has_work.set()
        try:
            yield watcher
        finally:
            self._of_tenants -= Counter([tenant])
            followed.watchers.discard(watcher)
            if not followed.watchers and self._followed.get(job_id) is followed:
                del self._followed[job_id]

    def require_room(self, principal: Principal) -> None:
        """Raises `RateLimited` or `Unavailable` where there is no place."""
        if self._of_tenants[principal.tenant_id] >= self._most_of_tenant:
            raise RateLimited(
                f"{self._most_of_tenant} streams of events are open already",
                code="too_many_streams",
                next_action="close some, or ask for pages of events",
                retry_after=1,
            )
        if self._of_tenants.total() >= self._most:
            raise Unavailable(
                "as many streams of events are open as this process holds",
                code="too_many_streams",
                next_action="try again in a moment, or ask for pages of events",
            )

    def end(self) -> None:
        """Ends all streams: the service stops, and clients come back with `Last-Event-ID`."""
        self._is_ending = True
        for followed in self._followed.values():
            for watcher in followed.watchers:
                watcher.end(None)

    async def pages(self, principal: Principal, job_id: str, after: int) -> AsyncGenerator[Sequence[Item]]:
        """What there is after an event, page by page. Raises `NotFound`."""
        has_more = True
        while has_more:
            page = await anyio.to_thread.run_sync(self._page, principal, job_id, after, limiter=self._threads_for_pages)
            yield page.items
            after, has_more = page.position, page.has_more

    def _page(self, principal: Principal, job_id: str, after: int) -> Page:
        with self._registry.reading() as session:
            return read_page(session, principal, job_id, after)

    async def _read(self) -> None:
        while True:
            if not self._followed:
                self._has_work.clear()
                await self._has_work.wait()
            began = time.monotonic()
            try:
                has_more = await self._look()
            except Exception as error:  # a job that is deleted during a look, say: the others are followed on
                logger.warning("events cannot be read: %s", first_line(error))
                await asyncio.sleep(_OUTAGE_SECONDS)
                continue
            if not has_more:
                # However many jobs are followed, the database has rest from it.
                await asyncio.sleep(max(POLL_SECONDS, time.monotonic() - began))

    async def _look(self) -> bool:
        asked = {job_id: followed for job_id, followed in self._followed.items() if followed.begun_at is not None}
        if not asked:
            return False
        events, ends, has_more = await anyio.to_thread.run_sync(self._news, asked, limiter=self._thread)
        for job_id, items in events.items():
            asked[job_id].position = items[-1][0]
            for watcher in asked[job_id].watchers:
                watcher.tell(items)
        for job_id, done in ends.items():
            for watcher in asked[job_id].watchers:
                watcher.end(done)
            if self._followed.get(job_id) is asked[job_id]:
                del self._followed[job_id]
        return has_more

    def _news(self, asked: Mapping[str, _Followed]) -> tuple[dict[str, list[Item]], dict[str, bytes], bool]:
        """New items by job; what is sent last of those that have ended; whether there is more to read at once."""
        items: dict[str, list[Item]] = {}
        with self._registry.reading() as session:
            found = news(session, {job_id: followed.position for job_id, followed in asked.items()}, BATCH)
            for event in found.events:
                items.setdefault(event.job_id, []).append(_item(event))
            ends = dict.fromkeys(found.gone, b"")
            for job_id in () if found.has_more else found.ended:
                principal = asked[job_id].principal
                job = JobOut.of(
                    principal, jobs.view(session, jobs.get(session, principal, job_id), self._registry.settings)
                )
                ends[job_id] = format_sse_event(data_str=job.model_dump_json(), event="done")
        return items, ends, found.has_more


def read_page(session: Session, principal: Principal, job_id: str, after: int) -> Page:
    """What there is after an event. Raises `NotFound`."""
    page = jobs.events(session, principal, job_id, after, limit=BATCH, order="asc")
    items = [_item(event) for event in page.data]
    if items or not after:
        return Page(items, items[-1][0] if items else 0, page.has_more)
    # A client may name any event, and from one that is still to come the reader must not begin.
    newest = jobs.events(session, principal, job_id, limit=1, order="desc").data
    return Page([], min(after, newest[0].id if newest else 0), has_more=False)


def _item(event: JobEvent) -> Item:
    shown = EventOut.of(event)
    return event.id, format_sse_event(data_str=shown.model_dump_json(), event=shown.type, id=str(event.id))
