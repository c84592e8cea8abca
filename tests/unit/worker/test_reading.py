"""Bounds on what reading a file takes, and turns."""

import threading

import pytest

import osora_data
from osora_core.data import Example
from osora_core.errors import DataError
from worker.reading import Bounds, Turns

ROW = osora_data.Row(1, 7, "text", {"text": "x"})


def example(tokens: int, line: int) -> Example:
    return Example((0,) * tokens, (True,) * tokens, line)


def test_too_many_tokens_and_too_long_a_time_name_the_line() -> None:
    bounds = Bounds(tokens=10, seconds=60)
    bounds.check(ROW)
    bounds.count(example(6, 1))
    with pytest.raises(DataError, match=r"line 2: the rows up to here have 12 tokens, .* may have 10") as many:
        bounds.count(example(6, 2))
    assert "OSORA_JOB_TOKENS" in (many.value.next_action or "")
    with pytest.raises(DataError, match=r"line 7: reading the rows has taken 0 seconds"):
        Bounds(tokens=10, seconds=0).check(ROW)


def test_one_file_a_tenant_and_two_in_all() -> None:
    turns, stays = Turns(), threading.Event()
    left = threading.Event()
    entered: list[str] = []
    changed = threading.Condition()

    def read(tenant: str, left: threading.Event) -> None:
        with turns.taken(tenant, left):
            with changed:
                entered.append(tenant)
                changed.notify()
            stays.wait(60)

    def start(tenant: str, left: threading.Event) -> threading.Thread:
        thread = threading.Thread(target=read, args=(tenant, left))
        thread.start()
        return thread

    def wait_for(count: int) -> None:
        with changed:
            assert changed.wait_for(lambda: len(entered) == count, 60)

    first = [start("a", left), start("a", left)]
    wait_for(1)
    second = start("b", left)
    wait_for(2)
    third = start("c", left)
    assert sorted(entered) == ["a", "b"]
    left.set()  # nobody waits for them any more: they end without a turn
    wait_for(4)
    stays.set()
    for thread in (*first, second, third):
        thread.join(60)
    with turns.taken("a", threading.Event()):
        pass
