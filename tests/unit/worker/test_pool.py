"""The pool's threads tell the event loop when they are free."""

import threading

import pytest
from kombu.asynchronous import Hub

from worker import pool


def test_a_thread_that_ends_turns_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(pool, "get_event_loop", lambda: hub)
    turned = threading.Event()
    monkeypatch.setattr(hub, "call_soon", lambda callback: turned.set())
    ended = threading.Event()
    threads = pool.Pool.of(lambda: 1)(limit=1)
    result = threads.on_apply(lambda: ended.wait(60), (), {})
    assert not turned.is_set()
    ended.set()
    assert turned.wait(60)
    assert result.f.done()
    threads.on_stop()
    hub.close()
