"""The bases that this server answers for: those it began with, and those that come and go while it runs."""

import asyncio
import gc
import json
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from fastapi.concurrency import run_in_threadpool

from inference.engines import make_engine
from inference.errors import ServerError
from inference.generation import Served
from inference.schemas import AddBase
from inference.settings import InferenceSettings
from inference.store import ArtifactStore
from osora_common.freed_memory import give_back
from osora_core.base_folders import BaseFolders
from osora_core.base_making import Order
from osora_core.basis import BasisCache
from osora_core.errors import OsoraCoreError, UserError
from osora_core.inference import InferenceEngine
from osora_core.out_of_memory import refusing_to_run_out
from osora_core.runtime import Runtime, set_threads

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.2
_MAKING = (sys.executable, "-P", "-m", "osora_core.base_making")


@dataclass
class _Added:
    """A base that was added: loading until it is served, or has failed with a `problem`."""

    id: str
    task: "asyncio.Task[None] | None" = None
    problem: str | None = None
    kept: ExitStack = field(default_factory=ExitStack)


class Bases:
    """By name. `paths` says where each is loaded from, and is kept up to date."""

    def __init__(
        self, settings: InferenceSettings, store: ArtifactStore, serve: Callable[[InferenceEngine], Served]
    ) -> None:
        """`serve`: starts what answers through an engine; it is called in the event loop."""
        self._settings = settings
        self._serve = serve
        self._folders = BaseFolders(settings.data_dir)
        self._cache = BasisCache(settings.data_dir / "cache", store)
        self.paths: dict[str, str] = settings.base_paths
        self._served: dict[str, Served] = {}
        self._added: dict[str, _Added] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        # One at a time: each reckons with the memory that the one before has left.
        self._loading = asyncio.Lock()

    def begin(self, engines: Mapping[str, InferenceEngine]) -> None:
        """Serve those that are there from the beginning."""
        self._served = {name: self._serve(engine) for name, engine in engines.items()}

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._served.values()))

    def held(self, name: str) -> Served:
        """Raises ServerError 503 for a base that is not here, or not yet."""
        served = self._served.get(name)
        if served is None:
            added = self._added.get(name)
            is_coming = added is not None and added.problem is None
            raise ServerError(
                503, "service_unavailable_error", "base_not_loaded",
                f"this server {'is still loading' if is_coming else 'does not hold'} the base {name!r}",
                next_action="try again in a moment" if is_coming
                else "have whoever runs the service see `osora bases`, which says why" if added is not None
                else "give API and inference server the same OSORA_BASES",
            )  # fmt: skip
        return served

    def describe(self) -> dict[str, Any]:
        """What GET /bases says."""
        added = [
            {"name": name, "id": one.id, "loaded": name in self._served, "problem": one.problem}
            for name, one in self._added.items()
        ]
        return {"data": [served.describe() for served in self], "added": added}

    def add(self, base: AddBase) -> None:
        """Begin to load a base, if it is not here yet; one that has failed is tried again.

        Raises ServerError 409 where another base has its name.
        """
        there = self._added.get(base.name)
        if there is not None and there.id == base.id and there.problem is None:
            return
        if base.name in self._served or (there is not None and there.task is not None):
            raise ServerError(
                409, "invalid_request_error", "base_exists", f"another base is called {base.name!r} here",
                next_action="remove that one first",
            )  # fmt: skip
        added = self._added[base.name] = _Added(base.id)
        added.task = asyncio.create_task(self._load(base, added))

    def remove(self, name: str) -> bool:
        """Answer no more requests for a base that was added; those that run end as they would. False if it is not
        here."""
        added = self._added.pop(name, None)
        if added is None:
            return False
        task = asyncio.create_task(self._unload(name, added, self._served.pop(name, None)))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return True

    async def close(self) -> None:
        """Stop all engines."""
        for task in [*self._leaving, *(added.task for added in self._added.values() if added.task is not None)]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for served in self:
            served.loop.stop()
        for added in self._added.values():
            added.kept.close()

    async def _load(self, base: AddBase, added: _Added) -> None:
        try:
            async with self._loading:
                if not await run_in_threadpool(self._folders.is_here, base.source, base.content):
                    await self._make_files(base)
                others = [served.loop.engine for served in self]
                engine = await run_in_threadpool(self._engine, base, added, others)
            if self._added.get(base.name) is not added:  # removed meanwhile
                return
            self.paths[base.name] = self._folders.place(base.source, base.content)
            self._served[base.name] = self._serve(engine)
        except (OsoraCoreError, OSError) as error:
            added.problem = str(error)
            added.kept.close()
            logger.warning("base %s cannot be served for now: %s", base.name, error)
        except Exception as error:
            added.problem = f"{type(error).__name__}: {error}"
            added.kept.close()
            logger.exception("base %s cannot be served", base.name)
        finally:
            added.task = None

    def _engine(self, base: AddBase, added: _Added, others: list[InferenceEngine]) -> InferenceEngine:
        """For a thread."""
        set_threads(1)
        settings = self._settings
        added.kept.enter_context(self._folders.held(base.source, base.content))
        place = self._folders.place(base.source, base.content)
        with refusing_to_run_out(f"the base {base.name!r} and its engine"):
            runtime = Runtime.load(base.name, self._cache, path=place, device=settings.device, rank=settings.basis_rank)
            return make_engine(settings, runtime, self._cache.directory, others)

    async def _make_files(self, base: AddBase) -> None:
        """Convert it here as well: another machine has prepared it. Raises UserError."""
        settings = self._settings
        order = Order(
            base.name, base.source, base.content, str(settings.data_dir), settings.device, settings.basis_rank, True
        )
        process = await asyncio.create_subprocess_exec(
            *_MAKING, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            last: dict[str, Any] = {}
            async for line in process.stdout:
                last = json.loads(line)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
        if "facts" not in last:
            said = last.get("error") or {"message": "it could not be converted here", "next_action": None}
            raise UserError(said["message"], next_action=said["next_action"])

    async def _unload(self, name: str, added: _Added, served: Served | None) -> None:
        if added.task is not None:  # what is being loaded is loaded first, and then let go of
            await asyncio.wait({added.task})
        if served is not None:
            while served.loop.alive and served.loop.is_busy:
                await asyncio.sleep(_IDLE_SECONDS)
            await run_in_threadpool(served.loop.stop)
            served.close()
        served = None
        added.kept.close()
        await run_in_threadpool(_let_go_of_memory)
        logger.info("base %s was removed", name)


def _let_go_of_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()
