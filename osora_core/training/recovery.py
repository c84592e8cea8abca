"""Makes a step's passes although one of its jobs takes too much memory, or has data or losses that raise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from osora_core.data import Row
from osora_core.training.errors import DeviceLostError
from osora_core.training.job import TrainingJob
from osora_core.training.methods import Contribution, contributions
from osora_core.training.passes import Item, Passes

Part = tuple[TrainingJob, Contribution]


def contribute(
    passes: Passes, stepping: Sequence[tuple[TrainingJob, Sequence[Row]]], *, apart: bool
) -> tuple[list[Part], dict[str, Exception]]:
    """What each job brings with its batch, and the error of each job that cannot step, by its id.

    All jobs are asked together. If that fails, or with `apart`, each is asked by itself, so that an error is its own
    job's. Raises DeviceLostError as the passes do.
    """
    jobs = [job for job, _ in stepping]
    if not apart:
        try:
            return list(zip(jobs, contributions(stepping, passes), strict=True)), {}
        except DeviceLostError:
            raise
        except Exception:
            pass
        if passes.runtime.device.type == "cuda":
            torch.cuda.empty_cache()
    parts: list[Part] = []
    errors: dict[str, Exception] = {}
    for one in stepping:
        try:
            (part,) = contributions([one], passes)
            parts.append((one[0], part))
        except DeviceLostError:
            raise
        except Exception as error:
            errors[one[0].id] = _without_frames(error)
    return parts, errors


def backward(passes: Passes, parts: Sequence[Part], *, apart: bool) -> tuple[Tensor, dict[str, Exception]]:
    """As `Passes.backward` for these parts: sums [2, shares], and the error of each job that cannot step, by its id.

    Where memory runs out, the step is tried again; from then on the largest job goes through the model by itself and in
    smaller groups, down to a row at a time, and its gradients are sums over the same rows. After any other error, and
    with `apart`, each job goes by itself, so that an error is its own job's. Raises DeviceLostError as the passes do.
    """
    while True:
        try:
            return backward_once(passes, parts, parts, apart), {}
        except DeviceLostError:
            raise
        except torch.OutOfMemoryError:
            again = _step_down(parts, passes.token_budget)
        except Exception:
            again = False
        passes.bank.drop_grads()
        if passes.runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        if not again:
            return _one_by_one(passes, parts)


def backward_once(passes: Passes, parts: Sequence[Part], stepping: Sequence[Part], apart: bool) -> Tensor:
    """As `backward`, of those parts that are `stepping`; whatever goes wrong is raised."""
    items: list[Item] = []
    slots: list[int] = []
    shares: list[float] = []
    for part in parts:
        job, brought = part
        items += [(row, len(slots) + index) for row, index in brought.rows] if part in stepping else []
        slots += [job.slot] * len(brought.shares)
        shares += brought.shares
    limits = {job.slot: job.pass_tokens or (passes.token_budget if apart else 0) for job, _ in stepping}
    return passes.backward(items, slots, shares, {slot: limit for slot, limit in limits.items() if limit})


def _step_down(parts: Sequence[Part], token_budget: int) -> bool:
    """Halve what the largest job takes at once; False if every job is down to a row."""
    longest = {job.id: max((len(row) for row, _ in brought.rows), default=0) for job, brought in parts}
    sizes = {
        job.id: job.pass_tokens or max(longest[job.id], min(token_budget, longest[job.id] * len(brought.rows)))
        for job, brought in parts
    }
    able = [job for job, _ in parts if job.pass_tokens is None or sizes[job.id] > longest[job.id]]
    if not able:
        return False
    largest = max(able, key=lambda job: sizes[job.id])
    largest.pass_tokens = max(longest[largest.id], sizes[largest.id] // 2)
    largest.observer.stepped_down(largest.pass_tokens)
    return True


def _one_by_one(passes: Passes, parts: Sequence[Part]) -> tuple[Tensor, dict[str, Exception]]:
    sums = torch.zeros(2, sum(len(brought.shares) for _, brought in parts), device=passes.runtime.device)
    errors: dict[str, Exception] = {}
    for part in parts:
        try:
            sums += backward_once(passes, parts, [part], apart=True)
        except DeviceLostError:
            raise
        except Exception as error:
            errors[part[0].id] = _without_frames(error)
    return sums, errors


def _without_frames(error: Exception) -> Exception:
    """Where memory has run out: an error's frames hold tensors."""
    return error.with_traceback(None) if isinstance(error, torch.OutOfMemoryError) else error
