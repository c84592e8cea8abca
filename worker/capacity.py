"""How many jobs a worker takes at once, and the slots that its engines have for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from osora_core.bank import Bank
from osora_core.runtime import Runtime
from osora_core.training.memory import Memory, free_bytes
from osora_core.training.passes import MakePasses
from registry.settings import Settings


@dataclass(frozen=True)
class Capacity:
    """`jobs` at once, of all bases together; each base's engine has a bank of `slots`."""

    jobs: int
    slots: int

    @classmethod
    def of(cls, settings: Settings, runtimes: Mapping[str, Runtime], passes: MakePasses) -> "Capacity":
        """What the operator says, or what fits the memory: see `Memory.jobs_at_once`.

        Of several bases each gets an equal part of the memory, and the one that fits the fewest jobs decides.
        """
        further = settings.sweep_members
        if settings.worker_jobs != "auto":
            jobs = settings.worker_jobs
        else:
            jobs = min(_fitting(runtime, passes, 1 / len(runtimes), further) for runtime in runtimes.values())
        return cls(jobs, _slots(jobs, further))

    def beside(self, settings: Settings, runtime: Runtime, passes: MakePasses, bases: int) -> "Capacity":
        """With a base more, the last of so many: no more jobs than before, and no more than fit beside that base.

        Raises MemoryTooSmall where not even one does.
        """
        if settings.worker_jobs != "auto":
            return self
        further = settings.sweep_members
        jobs = min(self.jobs, _fitting(runtime, passes, 1 / bases, further))
        return Capacity(jobs, _slots(jobs, further))


def _slots(jobs: int, further: int) -> int:
    """As many again as jobs, for the further members of sweeps, and as one sweep may need: a job never waits for a
    sweep to end, nor is there a sweep that has no room."""
    return jobs + max(jobs, further)


def _fitting(runtime: Runtime, make_passes: MakePasses, part: float, further: int) -> int:
    # The probe runs the bare base, for which an empty bank is enough.
    passes = make_passes(runtime, Bank(runtime.basis, 0, device=runtime.device, trainable=True), None)
    return Memory(passes, part * free_bytes(passes)).jobs_at_once(lambda jobs: _slots(jobs, further))
