"""What a generation has computed is recorded, however it ends, and without a word of what it said."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.leaving import post_and_leave
from tests.unit.inference.conftest import InferenceServer

SECRET = "a secret of the customer"
TOKEN_FIELDS = ("prompt_tokens", "completion_tokens")


def records(server: InferenceServer) -> list[dict[str, Any]]:
    """All that it hands out."""
    found: list[dict[str, Any]] = []
    taken: dict[str, int] = {}
    while True:
        answer = server.http.post("/usage/take", json={"acknowledged": taken}).json()
        if answer["segment"] is None:
            return found
        found += answer["records"]
        taken = {answer["segment"]: answer["records"][-1]["number"]}


def tokens(record: dict[str, Any]) -> tuple[int, int]:
    return record["prompt_tokens"], record["completion_tokens"]


def test_a_record_has_the_numbers_of_the_answers_usage_and_no_text(server: InferenceServer, tmp_path: Path) -> None:
    adapter = server.publish("a")
    who = {"tenant": "tenant-1", "key": "key-1", "kind": "chat"}
    one = server.ask(prompt=SECRET, adapter=adapter, **who).json()
    several = server.ask(prompt=["help", SECRET], n=2, **who).json()
    text = b"".join(path.read_bytes() for path in (tmp_path / "usage").iterdir())
    for said in (SECRET.encode(), one["text"].encode() or b"secret"):
        assert said not in text
    first, second = records(server)
    for record, answer in ((first, one), (second, several)):
        assert tokens(record) == tuple(answer["usage"][name] for name in TOKEN_FIELDS)
        assert (record["tenant"], record["key"], record["kind"], record["base"]) == (*who.values(), "tiny")
    assert (first["adapter"], second["adapter"]) == ("adp-a", "")
    assert records(server) == []


@pytest.mark.parametrize("after", [0, 6])
def test_who_leaves_is_charged_for_what_was_computed(server: InferenceServer, after: int) -> None:
    server.engine.prefill_tokens = 2  # a prompt takes several steps
    server.steps.hold(after=after)
    body = server.body(prompt="help the customer with it", max_tokens=100)
    whole = len(server.served.renderer.encode(body["prompt"]))
    post_and_leave(server.http, "/generate", body, server.steps.held)
    assert server.clients.left.wait(60)
    server.steps.go.set()
    assert server.steps.cancelled.wait(60)
    record = left(server)
    assert 0 < record["prompt_tokens"] <= whole
    assert (record["completion_tokens"] > 0) == (record["prompt_tokens"] == whole) == (after > 0)


def test_what_was_refused_or_never_began_costs_nothing(server: InferenceServer) -> None:
    server.error(400, prompt="", max_tokens=0)
    server.error(400, prompt="help " * 100_000)
    server.steps.hold()
    clients = server.clients
    with ThreadPoolExecutor() as pool:
        running = []
        for _ in range(2):
            running.append(pool.submit(server.ask, max_tokens=2))
            assert clients.came.wait(60)
            clients.came.clear()
        post_and_leave(server.http, "/generate", server.body(tenant="waiting"), clients.came)
        assert clients.left.wait(60)
        server.steps.go.set()
        for answer in running:
            assert answer.result().status_code == 200
    assert "waiting" not in {record["tenant"] for record in records(server)}


def left(server: InferenceServer) -> dict[str, Any]:
    """The record of who has left: word of it reaches the spool soon after the engine has cancelled."""
    deadline = time.monotonic() + 60
    while not (found := records(server)):
        assert time.monotonic() < deadline
    (record,) = found
    return record
