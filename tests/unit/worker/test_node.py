"""What a worker makes of a wake-up that it cannot act on at once."""

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from worker.node import Node


@pytest.mark.parametrize(("later", "heeded"), [(["a"], 0), ([], 1)])
def test_a_place_that_is_left_between_two_looks_is_heeded(later: list[str], heeded: int) -> None:
    """The jobs that were looked at then were all of tenants to pass over; nobody else would look again."""
    looks = [["a"], later]
    told: list[str] = []
    node: Any = SimpleNamespace(
        _engines={"base": None},
        places=SimpleNamespace(passed_over=lambda: looks.pop(0)),
        _wants_to_be_alone=lambda base, passed_over: None,
        _counting=threading.Lock(),
        _unheeded=Counter[str](),
        _heed=lambda: told.append("heeded"),
    )
    Node.train(node, "base")
    assert (node._unheeded["base"], len(told)) == (1, heeded)
