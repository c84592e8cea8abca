"""A clock for steps that are timed."""

import itertools
from types import SimpleNamespace

import pytest

from osora_core.training import throughput


@pytest.fixture
def a_second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real steps, on a clock on which each takes a second, in however many copies.

    Where the machine is busy for a moment, those that are timed would take longer than may be spent on them.
    """
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
