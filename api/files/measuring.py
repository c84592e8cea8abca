"""Training files in the tokens of a base: an inference server counts them, and the registry keeps what it found."""

import asyncio
import json
import logging

import httpx
from fastapi.concurrency import run_in_threadpool

from api.bases.known import base_paths
from api.gateway import close
from api.services import Services
from osora_data.measures import Measure
from registry import measures
from registry.errors import OsoraError
from registry.models import File
from registry.outages import DATABASE_OUTAGES, first_line

logger = logging.getLogger(__name__)

SECONDS = 20.0
"""For which a request waits for a measure. It is made all the same, and is there for the next one."""
_LATER = "it is still being measured: ask again in a moment"


async def measure_of(
    services: Services, file: File, base: str, *, limit: int | None = None, seconds: float = SECONDS
) -> Measure | None:
    """A file of the caller's own in the tokens of a base; None where that cannot be had within `seconds`.

    `limit`: tokens of the longest row that the job is to take, if that is less than what the base reads.
    """
    found = await measured(services, file, base, limit=limit, seconds=seconds)
    return found if isinstance(found, Measure) else None


async def measured(
    services: Services, file: File, base: str, *, limit: int | None = None, seconds: float = SECONDS
) -> Measure | str:
    """The same, or in words why there is none."""
    loaded = {one["name"]: one for one in await services.gateway.bases()}
    fingerprint = loaded[base].get("fingerprint") if base in loaded else None

    def kept() -> Measure | None:
        with services.registry.reading() as session:
            return measures.find(session, file.id, base, limit, base_fingerprint=fingerprint)

    async def kept_or_asked() -> Measure | str:
        # Looked for once more: the one that was under way may have ended since, and is not made twice.
        return await run_in_threadpool(kept) or await _ask(services, file, base, limit)

    found = await run_in_threadpool(kept)
    if found is not None:
        return found
    if base not in loaded:
        return f"no inference server that holds the base {base!r} answers"
    task = services.measuring.begin(file.tenant_id, f"{file.id} {base} {limit}", kept_or_asked)
    if task is None:
        return f"{services.measuring.most_of_tenant} files of yours are being measured: ask again in a moment"
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return task.result() if done else _LATER


async def begin_measuring(services: Services, file: File) -> None:
    """Has a new file measured where it is clear on which base it will be trained: most who send one make a job next."""
    bases = list(await base_paths(services))
    if len(bases) == 1:
        await measured(services, file, *bases, seconds=0)


async def _ask(services: Services, file: File, base: str, limit: int | None) -> Measure | str:
    """Has a file measured, and keeps what is found."""
    payload = {
        "tenant": file.tenant_id,
        "base": base,
        "object_key": file.object_key,
        "sha256": file.sha256,
        "rows": file.rows,
        "bytes": file.bytes,
        "limit": limit,
    }
    try:
        response = await services.gateway.ask("/measure", payload, key=file.id, request_id=f"measure {file.id}")
        try:
            answer = json.loads(await response.aread())
        finally:
            await close(response)
        if response.status_code != 200:
            return str(answer["error"]["message"])
        measure = Measure.of(answer["measure"])
    except OsoraError as error:
        return error.message
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        logger.exception("file %s could not be measured", file.id)
        return "the inference server did not answer as it should"

    def keep() -> None:
        with services.registry.transaction() as session:
            measures.keep(
                session, file.id, base, limit, measure, base_fingerprint=answer["base_fingerprint"]
            )  # fmt: skip

    try:
        await run_in_threadpool(keep)
    except DATABASE_OUTAGES as error:
        logger.warning("the measure of file %s could not be kept: %s", file.id, first_line(error))
    return measure
