"""Who may be inside together, and how one stops waiting."""

import threading
from collections.abc import Callable

import pytest

from tests.support.threads import in_parallel
from worker.gate import Gate


@pytest.fixture
def draining() -> threading.Event:
    return threading.Event()


@pytest.fixture
def gate(draining: threading.Event) -> Gate:
    return Gate(draining)


def yes() -> bool:
    return True


def test_together_or_alone(gate: Gate) -> None:
    with gate.passing(alone=False, wanted=yes) as first, gate.passing(alone=False, wanted=yes) as second:
        assert first
        assert second
        assert gate.is_open(alone=False)
        assert not gate.is_open(alone=True)
    with gate.passing(alone=True, wanted=yes) as only:
        assert only
        assert not gate.is_open(alone=False)
        assert not gate.is_open(alone=True)
    assert gate.is_open(alone=True)


@pytest.mark.parametrize("way", ["not wanted", "draining"])
def test_waiting_ends_when_there_is_nothing_to_wait_for(gate: Gate, draining: threading.Event, way: str) -> None:
    asked = 0

    def wanted() -> bool:
        nonlocal asked
        asked += 1
        if way == "draining":
            draining.set()
        return way == "draining" or asked < 2

    with gate.passing(alone=False, wanted=yes):
        with gate.passing(alone=True, wanted=wanted) as entered:
            assert not entered
        assert gate.is_open(alone=False)  # nobody waits to be alone any more
    assert asked == (1 if way == "draining" else 2)


def test_who_waits_to_be_alone_goes_before_newcomers(gate: Gate) -> None:
    waiting, inside = threading.Event(), threading.Event()
    order: list[str] = []

    def wanted() -> bool:
        waiting.set()
        return True

    def stay() -> None:
        with gate.passing(alone=False, wanted=yes):
            inside.set()
            assert waiting.wait(60)
            newcomer.start()

    def alone() -> None:
        assert inside.wait(60)
        with gate.passing(alone=True, wanted=wanted):
            order.append("alone")

    def come() -> None:
        with gate.passing(alone=False, wanted=yes):
            order.append("newcomer")

    newcomer = threading.Thread(target=come)
    tasks: list[Callable[[], None]] = [stay, alone]
    in_parallel(2, lambda index: tasks[index]())
    newcomer.join(60)
    assert order == ["alone", "newcomer"]
