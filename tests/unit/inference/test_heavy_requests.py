"""Whatever one request is made of, the streams of others and /health go on beside it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.unit.inference.conftest import InferenceServer

PATIENCE = 60


class Held:
    """Calls of a function do not return before `go` is set; `reached` says that one was made."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self._function = function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.reached.set()
        assert self.go.wait(PATIENCE)
        return self._function(*arguments, **options)


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> Iterator[Held]:
    made = Held(getattr(target, name))
    monkeypatch.setattr(target, name, made)
    try:
        yield made
    finally:
        made.go.set()
        monkeypatch.undo()


@pytest.mark.parametrize("what", ["prompt", "messages", "json_schema", "regex"])
def test_others_are_served_while_a_request_is_being_read(
    server: InferenceServer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """However long it takes to tokenise, to render or to compile it."""
    served = server.served
    fields: dict[str, Any]
    target: object
    target, name, fields = {
        "prompt": (served.renderer, "encode", {"prompt": "heavy"}),
        "messages": (served.renderer, "prompt", {"messages": [{"role": "user", "content": "heavy"}]}),
        "json_schema": (served.grammars, "json_schema", {"json_schema": {"type": "boolean"}}),
        "regex": (served.grammars, "regex", {"regex": "yes|no"}),
    }[what]
    alone = server.text(prompt="light", max_tokens=30, tenant="other")
    light = server.body(prompt="light", max_tokens=30, tenant="other", stream=True)
    with ThreadPoolExecutor(1) as pool, server.http.stream("POST", "/generate", json=light) as response:
        lines = response.iter_lines()
        next(lines)  # it runs
        with held(monkeypatch, target, name) as work:
            heavy = pool.submit(server.ask, tenant="heavy", **fields)
            assert work.reached.wait(PATIENCE)
            assert any(line == "event: done" for line in lines)
            assert server.http.get("/health").status_code == 200
            if what in ("json_schema", "regex"):
                assert server.text(prompt="light", max_tokens=30, tenant="other") == alone
            assert not heavy.done()
        assert heavy.result().status_code == 200


def test_a_flood_of_heavy_patterns_does_not_take_the_pace_of_a_stream(server: InferenceServer) -> None:
    """Each of them used to stop the engine for more than a second."""

    def seconds() -> float:
        began = time.perf_counter()
        server.text(max_tokens=100, tenant="other")
        return time.perf_counter() - began

    alone = max(seconds() for _ in range(3))
    over = threading.Event()

    def flood() -> int:
        sent = 0
        with httpx.Client(base_url=server.http.base_url, headers=server.http.headers, timeout=PATIENCE) as http:
            while not over.is_set():
                pattern = f"x{{{sent % 9 + 1}}}y{sent}(a{{1000}}){{1000}}"
                answer = http.post("/generate", json=server.body(regex=pattern, tenant="flood"))
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "regex"), answer.text
                sent += 1
        return sent

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flood)
        try:
            beside = min(seconds() for _ in range(3))
        finally:
            over.set()
        assert running.result() > 0
    alone = max(alone, *(seconds() for _ in range(3)))  # who else needs the cores may have come meanwhile
    assert beside < 5 * alone


def test_a_text_that_is_much_too_long_is_not_tokenised(
    server: InferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("encode", "prompt"):
        monkeypatch.setattr(server.served.renderer, name, None)
    for fields in ({"prompt": "a" * 4_000_000}, {"messages": [{"role": "user", "content": "a" * 4_000_000}]}):
        error = server.error(400, **fields)
        assert error["param"] == next(iter(fields))
        assert "4000" in error["message"]
        assert "at most 127 tokens" in error["message"]
    error = server.error(400, messages=[{"role": "user", "content": ""}] * 100_000)
    assert error["param"] == "messages"


def test_a_refused_pattern_costs_nothing_the_next_time(
    server: InferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = server.error(400, regex="((a{1000}){1000}){1000}")
    monkeypatch.setattr(server.served.grammars, "_compile", None)
    assert server.error(400, regex="((a{1000}){1000}){1000}") == first
