"""Adapters in host memory: fetched, verified and laid out as a bank row off the engine's thread."""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from inference.schemas import AdapterRef
from osora_core.adapter import Adapter
from osora_core.basis import Basis
from osora_core.errors import CorruptArtifact
from osora_core.inference import AdapterRow

# A store that answers slowly keeps so many loads busy, and nothing but loads.
_THREADS = 8
# No thread of them keeps the engine's from the interpreter for longer. By default it is 5 ms, as long as a step.
_SWITCH_SECONDS = 0.0005


class AdapterLoader:
    """Rows by (id, version, hash), least recently used first out once they exceed `capacity_bytes`.

    The key holds the artifact's hash, so a row can never be another adapter's than the one that was asked for. `check`
    is called with an adapter and its row the first time that it is fetched, on a thread of the loader's, and raises if
    it is not to be served.
    """

    def __init__(
        self,
        fetch: Callable[[str], bytes],
        basis: Basis,
        capacity_bytes: int,
        check: Callable[[Adapter, AdapterRow], None],
    ) -> None:
        self._fetch = fetch
        self._check = check
        self._basis = basis
        # By hash: it holds as long as the process does.
        self._checked: set[str] = set()
        self._capacity = capacity_bytes
        self._rows: OrderedDict[str, tuple[Tensor, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Future[tuple[Tensor, int]]] = {}
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="adapter-load")

    async def get(self, ref: AdapterRef, strength: float) -> AdapterRow:
        """The row of an adapter at a strength. Requests for the same cold adapter share one load.

        Raises CorruptArtifact or IdentityMismatch if what is stored is not what `ref` names, or what `check` raises.
        """
        key = f"{ref.id}@{ref.version}:{ref.sha256}"
        if key in self._rows:
            self._rows.move_to_end(key)
            values, rank = self._rows[key]
        else:
            task = self._loading.get(key)
            if task is None:
                task = asyncio.get_running_loop().run_in_executor(self._threads, self._load, ref, key)
                self._loading[key] = task
                task.add_done_callback(lambda done: self._keep(key, done))
            # A client that gives up must not take the load away from the others.
            values, rank = await asyncio.shield(task)
        if strength == 1.0:
            return AdapterRow(key, values, rank)
        return AdapterRow(f"{key}*{strength!r}", values * strength, rank)

    def _load(self, ref: AdapterRef, key: str) -> tuple[Tensor, int]:
        adapter = Adapter.from_zip(self._fetch(ref.object_key), ref.sha256)
        row = adapter.to_row(self._basis)
        # With numpy, which computes on this thread alone: torch would start a team of its own for it.
        if not np.isfinite(row.numpy()).all():
            raise CorruptArtifact(
                f"the adapter {ref.id} holds values that are not numbers",
                next_action="train it again with a lower learning rate",
            )
        row = row.to(self._basis.dtype)
        if ref.sha256 not in self._checked:
            self._check(adapter, AdapterRow(key, row, adapter.rank))
            self._checked.add(ref.sha256)
        return row, adapter.rank

    def _keep(self, key: str, task: "asyncio.Future[tuple[Tensor, int]]") -> None:
        del self._loading[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._rows[key] = task.result()
        while len(self._rows) > 1 and self._bytes > self._capacity:
            self._rows.popitem(last=False)

    @property
    def _bytes(self) -> int:
        # Every row of a basis is equally long.
        return len(self._rows) * self._basis.row_length * self._basis.dtype.itemsize
