"""How many jobs a worker takes at once, and what becomes of a sweep that it has no room for."""

from bisect import bisect_left
from collections.abc import Callable

import pytest

from osora_core.errors import MemoryTooSmall
from osora_core.runtime import Runtime
from osora_core.training.passes import Passes
from registry.models import Job
from registry.settings import Settings
from worker.capacity import Capacity
from worker.threads import EngineThread

RATES = [0.1, 0.03, 0.01]


def test_bases_share_the_memory_and_an_operators_number_is_taken_at_its_word(
    runtime: Runtime, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(settings: Settings, bases: int, free: float) -> Capacity:
        monkeypatch.setattr(Passes, "available_bytes", lambda passes: free)
        return Capacity.of(settings, dict.fromkeys(map(str, range(bases)), runtime), Passes)

    def fitting(free: int) -> int:
        try:
            return found(settings, 1, free).jobs
        except MemoryTooSmall:
            return 0

    one, two, five = (bisect_left(range(10**9), jobs, key=fitting) for jobs in (1, 2, 5))
    assert found(settings, 1, five - 1).jobs == 4
    assert [found(settings, 2, free).jobs for free in (2 * two - 1, 2 * two, five)] == [1, 2, 1]
    # Whatever it takes, there is room for a sweep of as many members as the API lets pass.
    assert [found(settings, 1, free) for free in (one, five, 1e12)] == [
        Capacity(1, 9), Capacity(5, 13), Capacity(8, 16),
    ]  # fmt: skip
    with pytest.raises(MemoryTooSmall, match="a job on the base 'small' takes at least"):
        found(settings, 1, one - 1)
    for told in (1, 3, 100):
        asked = settings.model_copy(update={"worker_jobs": told})
        assert found(asked, 2, 0) == Capacity(told, 2 * told)


def test_a_sweep_that_an_idle_worker_has_no_room_for_fails_and_says_what_to_do(
    train: Callable[..., Job], upload: Callable[..., str], engine: EngineThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of slots, where the API was told a larger number than the worker, or of memory. What fits trains."""
    training_file = upload("order")

    def ends(members: int) -> Job:
        return train(1, training_file=training_file, osora={"learning_rate": RATES[:members]})

    assert ends(2).status == "succeeded"
    memory = engine.engine.memory
    too_many = ends(3)
    monkeypatch.setattr(memory, "limit", 1.5)
    monkeypatch.setattr(memory, "needed", len)
    too_large = ends(2)
    for job, words in (
        (too_many, "of 3 needs 3 slots, and there are 2 here"),
        (too_large, "of 2 needs"),
    ):
        assert job.status == "failed"
        assert job.error is not None
        assert (job.error["code"], job.error["param"]) == ("job_too_large", "osora.learning_rate")
        assert (job.error["fault"], job.attempt) == ("user", 1)
        assert words in job.error["message"]
        assert "list fewer rates" in job.error["next_action"]
