"""Fetches what inference servers have recorded, adds it to the sums, and says so to them.

Any number of processes may: the database knows what is in the sums already (`registry.usage.take_over`). A process that
dies between the two has a record come once more, to be left out.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, ValidationError

from api.gateway import InferenceGateway
from registry import usage
from registry.context import Registry
from registry.outages import first_line
from registry.usage import Generated, Kind

logger = logging.getLogger(__name__)

_PAUSE_AFTER_TROUBLE_SECONDS = 5.0

_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Id = Annotated[str, Field(max_length=40, pattern=r"^[\x21-\x7e]*$")]


class _Record(BaseModel):
    """A record as an inference server writes it."""

    number: _Count
    tenant: _Id
    key: _Id
    base: Annotated[str, Field(max_length=1000)]
    adapter: Annotated[_Id, Field(max_length=60)]
    kind: Kind
    prompt_tokens: _Count
    completion_tokens: _Count
    ended_at: _Count


class Collector:
    """Collects from every inference server, until it is stopped."""

    def __init__(self, registry: Registry, gateway: InferenceGateway) -> None:
        self._registry = registry
        self._gateway = gateway

    @classmethod
    @asynccontextmanager
    async def working(cls, registry: Registry, gateway: InferenceGateway) -> AsyncIterator[None]:
        """A collector at work. At exit, what a thread does with the database still ends."""
        collector = cls(registry, gateway)
        async with anyio.create_task_group() as tasks:
            for url in gateway.urls:
                tasks.start_soon(collector._work, url)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def collect(self, url: str) -> None:
        """Takes over all that a server has now. One that is silent has nothing."""
        acknowledged: dict[str, int] = {}
        while (answer := await self._gateway.take_usage(url, acknowledged)) is not None:
            if answer["gone"]:
                await run_in_threadpool(self._forget, answer["gone"])
            if answer["segment"] is None:
                return
            upto = await run_in_threadpool(self._take_over, answer["segment"], answer["records"])
            acknowledged = {answer["segment"]: upto}

    async def _work(self, url: str) -> None:
        while True:
            pause = self._registry.settings.maintenance_seconds
            try:
                await self.collect(url)
            except Exception as error:
                logger.warning("usage of %s waits: %s", url, first_line(error))
                pause = max(pause, _PAUSE_AFTER_TROUBLE_SECONDS)
            await anyio.sleep(pause)

    def _take_over(self, segment: str, said: Sequence[dict[str, Any]]) -> int:
        upto = max(int(record["number"]) for record in said)
        records = [record for one in said if (record := _read(one)) is not None]
        with self._registry.transaction() as session:
            usage.take_over(session, segment, records, upto)
        return upto

    def _forget(self, segments: Sequence[str]) -> None:
        with self._registry.transaction() as session:
            usage.forget(session, segments)


def _read(said: dict[str, Any]) -> Generated | None:
    """None, and a word in the log, for a record that nobody could ever charge: others must not wait behind it."""
    try:
        record = _Record.model_validate(said)
    except ValidationError as error:
        logger.error("usage: record %s cannot be read, and is left out: %s", said.get("id"), first_line(error))
        return None
    return Generated(
        number=record.number,
        tenant_id=record.tenant,
        key_id=record.key,
        base=record.base,
        adapter_id=record.adapter,
        kind=record.kind,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        ended_at=record.ended_at,
    )
