"""Adapters in host memory: fetched, verified and laid out as a bank row off the engine's thread."""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from inference.schemas import AdapterRef
from osora_core.adapter import Adapter, verify
from osora_core.basis import Basis
from osora_core.errors import CorruptArtifact, IdentityMismatch, UserError
from osora_core.inference import AdapterRow, LoraRow
from osora_core.inference.slots import LORA_RANKS, check_rank
from osora_core.lora import Lora
from osora_core.runtime import set_threads

# A store that answers slowly keeps so many loads busy, and nothing but loads.
_THREADS = 8
# No thread of them keeps the engine's from the interpreter for longer. By default it is 5 ms, as long as a step.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Loaded:
    """An adapter in host memory. Requests may begin with it at once; nothing of what they say may leave the server
    before `verdict` says that it is to be served. None: it is."""

    row: AdapterRow | LoraRow
    verdict: "Future[None] | None"

    @property
    def is_refused(self) -> bool:
        return self.verdict is not None and self.verdict.done() and self.verdict.exception() is not None


class AdapterLoader:
    """Rows by (id, version, hash), least recently used first out once they exceed `capacity_bytes`.

    The key holds the artifact's hash, so a row can never be another adapter's than the one that was asked for. `check`
    is called with an adapter and its row the first time that it is fetched, on a thread of the loader's. It raises if
    the adapter is not to be served, or returns who will tell. Plain LoRAs, of up to `lora_ranks`, bring no answers that
    they could be checked by.
    """

    def __init__(
        self,
        fetch: Callable[[str], bytes | memoryview],
        basis: Basis,
        capacity_bytes: int,
        check: Callable[[Adapter, AdapterRow], "Future[None] | None"],
        lora_ranks: int = LORA_RANKS,
    ) -> None:
        self._fetch = fetch
        self._check = check
        self._basis = basis
        self._lora_ranks = lora_ranks
        # By hash: it holds as long as the process does.
        self._checked: set[str] = set()
        self._capacity = capacity_bytes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, asyncio.Future[Loaded]] = {}
        sys.setswitchinterval(_SWITCH_SECONDS)
        # Each computes by itself: torch would start a team for every one of them.
        self._threads = ThreadPoolExecutor(_THREADS, "adapter-load", initializer=set_threads, initargs=(1,))
        self._hashing = ThreadPoolExecutor(_THREADS, "adapter-hash")

    async def get(self, ref: AdapterRef, strength: float) -> Loaded:
        """An adapter at a strength. Requests for the same cold adapter share one load.

        Raises IdentityMismatch if it is of another base or basis, CorruptArtifact if what is stored is not what `ref`
        names, UserError if its values leave the range of numbers at this strength, or what `check` raises.
        """
        self._check_identity(ref)
        key = f"{ref.id}@{ref.version}:{ref.sha256}"
        loaded = self._loaded.get(key)
        if loaded is not None and not loaded.is_refused:
            self._loaded.move_to_end(key)
        else:
            task = self._loading.get(key)
            if task is None:
                task = asyncio.get_running_loop().run_in_executor(self._threads, self._load, ref, key)
                self._loading[key] = task
                task.add_done_callback(lambda done: self._keep(key, ref.sha256, done))
            # A client that gives up must not take the load away from the others.
            loaded = await asyncio.shield(task)
        if strength == 1.0:
            return loaded
        scaled = asyncio.get_running_loop().run_in_executor(self._threads, _scale, loaded.row, strength)
        return replace(loaded, row=await scaled)

    @property
    def keys(self) -> list[str]:
        """Of the rows in host memory: each begins with its adapter's id and `@`."""
        return [*self._loaded]

    def close(self) -> None:
        """Load nothing any more."""
        for threads in (self._threads, self._hashing):
            threads.shutdown(wait=False, cancel_futures=True)

    def drop(self, is_unwanted: Callable[[str], bool]) -> None:
        """Let go of the rows with such keys. One that is being loaded just now is kept until it is asked again."""
        for key in filter(is_unwanted, self.keys):
            del self._loaded[key]

    def _check_identity(self, ref: AdapterRef) -> None:
        """Before anything is fetched. What is fetched is checked by what it says of itself."""
        for what, theirs, ours in (
            ("base", ref.base_fingerprint, self._basis.base_fingerprint),
            ("basis", ref.basis_fingerprint, self._basis.fingerprint),
        ):
            is_ours = theirs == ours or (what == "basis" and theirs is not None and self._basis.holds(theirs))
            if not is_ours and not (what == "basis" and ref.type == "lora"):
                raise IdentityMismatch(f"the adapter {ref.id} was made on {what} {theirs}; this server holds {ours}")

    def _load(self, ref: AdapterRef, key: str) -> Loaded:
        data = self._fetch(ref.object_key)
        # Half of what a load takes: on a core of its own.
        verified = self._hashing.submit(verify, data, ref.sha256)
        try:
            if ref.type == "lora":
                return Loaded(self._lay_out_lora(data, key), None)
            adapter, row = self._lay_out(data, ref.id, key)
        finally:
            # What other bytes say of themselves is of no interest.
            verified.result()
        return Loaded(row, None if ref.sha256 in self._checked else self._check(adapter, row))

    def _lay_out_lora(self, data: bytes | memoryview, key: str) -> LoraRow:
        lora = Lora.from_zip(data)
        check_rank(lora.rank, self._lora_ranks)
        return LoraRow(key, lora.factors(self._basis, self._basis.dtype), lora.rank)

    def _lay_out(self, data: bytes | memoryview, adapter_id: str, key: str) -> tuple[Adapter, AdapterRow]:
        adapter = Adapter.from_zip(data)
        values = adapter.to_row(self._basis)
        if not _is_finite(values):
            raise CorruptArtifact(
                f"the adapter {adapter_id} holds values that are not numbers",
                next_action="train it again with a lower learning rate",
            )
        return adapter, AdapterRow(key, values.to(self._basis.dtype), adapter.rank)

    def _keep(self, key: str, sha256: str, task: "asyncio.Future[Loaded]") -> None:
        del self._loading[key]
        if task.cancelled() or task.exception() is not None:
            return
        loaded = self._loaded[key] = task.result()
        while len(self._loaded) > 1 and self._bytes > self._capacity:
            self._loaded.popitem(last=False)
        self._note(sha256, loaded.verdict)

    def _note(self, sha256: str, verdict: "Future[None] | None") -> None:
        """Remember an adapter that passed: it need not be checked again."""

        def tell(verdict: "Future[None]") -> None:
            if verdict.exception() is None:
                self._checked.add(sha256)

        if verdict is None:
            self._checked.add(sha256)
        else:
            verdict.add_done_callback(tell)

    @property
    def _bytes(self) -> int:
        return sum(loaded.row.bytes for loaded in self._loaded.values())


def _scale(row: AdapterRow | LoraRow, strength: float) -> AdapterRow | LoraRow:
    key = f"{row.key}*{strength!r}"
    if isinstance(row, LoraRow):
        factors = {index: (A, B * strength) for index, (A, B) in row.factors.items()}
        _require_finite([B for _, B in factors.values()], strength)
        return LoraRow(key, factors, row.rank)
    values = row.values * strength
    _require_finite([values], strength)
    return AdapterRow(key, values, row.rank)


def _require_finite(parts: Sequence[Tensor], strength: float) -> None:
    if not all(map(_is_finite, parts)):
        raise UserError(
            f"at strength {strength:g} the adapter's values are too large for numbers of {parts[0].dtype}",
            param="strength",
            next_action="lower strength; 1 is the adapter as it was trained",
        )


def _is_finite(values: Tensor) -> bool:
    # Numpy takes a twentieth of torch's time for it, and has no bfloat16. What is not a number is its own extreme.
    values = values.float()
    return bool(np.isfinite([values.numpy().min(), values.numpy().max()]).all())


def judged(answer: "Future[Tensor]", judge: Callable[[Tensor], None]) -> "Future[None]":
    """What `judge` makes of an answer once it is there: nothing, or what it raises."""
    verdict: Future[None] = Future()

    def tell(answer: "Future[Tensor]") -> None:
        try:
            judge(answer.result())
        except Exception as error:
            verdict.set_exception(error)
        else:
            verdict.set_result(None)

    answer.add_done_callback(tell)
    return verdict
