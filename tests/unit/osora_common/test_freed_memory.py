"""Memory goes back to the system by itself."""

import threading

import pytest

from osora_common import freed_memory


def test_what_has_grown_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100, 100, 200, 100, 100] + [100] * 100)
    given, looked = [], threading.Event()

    def resident() -> int:
        size = next(sizes, 100) << 20
        if len(given) == 1:
            looked.set()
        return size

    monkeypatch.setattr(freed_memory, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(freed_memory, "_resident", resident)
    monkeypatch.setattr(freed_memory, "give_back", lambda: given.append(True))
    with freed_memory.giving_back():
        assert looked.wait(60)
    assert given == [True]
