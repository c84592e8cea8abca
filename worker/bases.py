"""Bases that are added and removed while the worker runs: prepared one at a time, loaded, let go of."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from osora_core.base_folders import BaseFolders
from osora_core.base_making import Order
from osora_core.basis import BasisCache
from osora_core.errors import OsoraCoreError
from osora_core.out_of_memory import refusing_to_run_out
from osora_core.runtime import Runtime, set_threads
from registry.added_bases import preparing
from registry.added_bases.preparing import Preparation, ReadyBase
from registry.context import Registry
from registry.outages import first_line
from worker import base_process
from worker.base_process import BaseProcess, PreparationCrashed, PreparationFailed
from worker.node import Node
from worker.threads import Periodic

logger = logging.getLogger(__name__)

# A base that could not be loaded may find memory or a file later on.
_AGAIN_SECONDS = 60.0
_REPORT_SECONDS = 1.0


@dataclass
class _Loaded:
    """A base that was added, in this process."""

    id: str
    kept: ExitStack = field(default_factory=ExitStack)


class BaseKeeper:
    """Has the node run the jobs of the bases that are added, and of those no more that are removed.

    `listen` and `ignore` are called with a base's name when its wake-ups are to be read and no more.
    """

    def __init__(
        self,
        registry: Registry,
        node: Node,
        cache: BasisCache,
        listen: Callable[[str], None],
        ignore: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._node = node
        self._cache = cache
        self._listen = listen
        self._ignore = ignore
        self._configured = frozenset(registry.settings.base_paths)
        self._folders = BaseFolders(registry.settings.data_dir)
        self._loaded: dict[str, _Loaded] = {}
        self._failed: dict[str, float] = {}
        self._swept: set[str] | None = None
        self._stopping = threading.Event()
        self._process: BaseProcess | None = None
        seconds = registry.settings.maintenance_seconds
        self._threads = [
            Periodic("bases", seconds, self.look),
            Periodic("base-preparation", seconds, self.prepare),
        ]

    def start(self) -> None:
        """Begin to look for changes."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what is being prepared goes back, for another worker to go on with."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.stop()
        for thread in self._threads:
            thread.stop()

    def look(self) -> None:
        """Load what is new, let go of what is not there any more."""
        set_threads(1)
        with self._registry.reading() as session:
            ready = {base.name: base for base in preparing.ready(session) if base.name not in self._configured}
            contents = preparing.contents(session)
        for name, loaded in list(self._loaded.items()):
            if name not in ready or ready[name].id != loaded.id:
                self._let_go(name, loaded)
        for base in ready.values():
            if base.name not in self._loaded and time.monotonic() >= self._failed.get(base.id, 0.0):
                self._load(base)
        if contents != self._swept and self._folders.discard_all_but(contents):
            self._swept = contents

    def prepare(self) -> None:
        """Prepare what waits, one base after another."""
        while not self._stopping.is_set():
            with self._registry.reading() as session:
                if not preparing.any_unfinished(session):
                    return
            with self._registry.transaction() as session:
                held = preparing.claim(session, self._node.worker_id, self._registry.settings.lease_seconds)
            if held is None:
                return
            self._prepare(held)

    def _prepare(self, held: Preparation) -> None:
        logger.info("base %s: is being prepared", held.name)
        with base_process.preparing(self._order(held.name, held.source, held.content)) as process:
            self._process = process
            if self._stopping.is_set():
                process.stop()
            try:
                with _Reporting(self._registry, held, process.stop) as reporting:
                    facts = process.run(reporting.take)
            except PreparationFailed as error:
                logger.warning("base %s cannot be used: %s", held.name, error.message)
                with self._registry.transaction() as session:
                    preparing.fail(session, held, error.message, error.next_action)
            except PreparationCrashed as error:
                logger.warning("base %s: %s", held.name, error)
                with self._registry.transaction() as session:
                    if self._stopping.is_set():
                        preparing.release(session, held)
                    else:
                        preparing.crash(session, held, str(error))
            else:
                with self._registry.transaction() as session:
                    preparing.finish(session, held, facts)
                logger.info("base %s is ready", held.name)
            finally:
                self._process = None

    def _order(self, name: str, source: str, content: str | None, *, only_files: bool = False) -> Order:
        settings = self._registry.settings
        folder = str(settings.data_dir)
        return Order(name, source, content, folder, settings.device, settings.basis_rank, only_files)

    def _load(self, base: ReadyBase) -> None:
        loaded = _Loaded(base.id)
        try:
            if not self._folders.is_here(base.source, base.content):  # another machine has prepared it
                order = self._order(base.name, base.source, base.content, only_files=True)
                with base_process.preparing(order) as process:
                    process.run(lambda _: None)
            loaded.kept.enter_context(self._folders.held(base.source, base.content))
            place, settings = self._folders.place(base.source, base.content), self._registry.settings
            with refusing_to_run_out(f"the base {base.name!r} and its jobs"):
                self._node.add_base(
                    Runtime.load(base.name, self._cache, path=place, device=settings.device, rank=settings.basis_rank)
                )
        except (OsoraCoreError, PreparationCrashed, OSError) as error:
            loaded.kept.close()
            self._failed[base.id] = time.monotonic() + _AGAIN_SECONDS
            logger.warning("base %s cannot be trained by this worker for now: %s", base.name, error)
            return
        except Exception:  # of a library; the other bases are loaded all the same
            loaded.kept.close()
            self._failed[base.id] = time.monotonic() + _AGAIN_SECONDS
            logger.exception("base %s cannot be trained by this worker for now", base.name)
            return
        self._failed.pop(base.id, None)
        self._loaded[base.name] = loaded
        self._listen(base.name)
        self._node.heed_base(base.name)
        logger.info("base %s: its jobs are taken", base.name)

    def _let_go(self, name: str, loaded: _Loaded) -> None:
        self._ignore(name)
        if self._node.remove_base(name):
            del self._loaded[name]
            loaded.kept.close()
            self._swept = None
            logger.info("base %s was removed", name)


class _Reporting:
    """Renews the lease of a preparation, and writes down how far it is; `lost` is called where it is another's."""

    def __init__(self, registry: Registry, held: Preparation, lost: Callable[[], None]) -> None:
        self._registry = registry
        self._held = held
        self._lost = lost
        self._line: Mapping[str, Any] = {"state": "waiting", "progress": None, "seconds_left": None}
        self._thread = Periodic("base-report", min(_REPORT_SECONDS, registry.settings.heartbeat_seconds), self._report)

    def take(self, line: Mapping[str, Any]) -> None:
        """What the process says."""
        self._line = line

    def __enter__(self) -> "_Reporting":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()

    def _report(self) -> None:
        line, lease = self._line, self._registry.settings.lease_seconds
        try:
            with self._registry.transaction() as session:
                mine = preparing.report(
                    session, self._held, lease, line["state"], line["progress"], line["seconds_left"]
                )
        except Exception as error:
            logger.warning("base %s: how far it is was not written down: %s", self._held.name, first_line(error))
            return
        if not mine:
            self._lost()
