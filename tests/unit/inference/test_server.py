"""The server over HTTP: every option, every refusal, and what one request can do to another: nothing."""

import io
import itertools
import json
import re
import threading
import zipfile
from collections.abc import Awaitable, Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from httpx_sse import EventSource
from safetensors.torch import load
from starlette.requests import Request

from osora_common.disconnect import unless_gone
from osora_core import canary
from osora_core.adapter import Adapter
from tests.support.leaving import post_and_leave
from tests.unit.inference.conftest import InferenceServer

SCHEMA = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", "shipping"]},
        "urgent": {"type": "boolean"},
        "order": {"type": "integer", "minimum": 0, "maximum": 999},
    },
    "required": ["category", "urgent", "order"],
    "additionalProperties": False,
}


def test_the_whole_answer(server: InferenceServer) -> None:
    ref = server.publish("a", seed=1)
    answer = server.ask(adapter=ref, n=2, temperature=1.0, seed=3, logprobs=True, top_logprobs=2).json()
    first, second = answer["choices"]
    assert (answer["text"], answer["finish_reason"]) == (first["text"], first["finish_reason"])
    assert first["text"] != second["text"]
    # The second choice is what the next seed gives alone.
    assert server.text(adapter=ref, temperature=1.0, seed=4) == second["text"]
    # An end-of-text token is counted and not shown.
    shown = sum(len(c["logprobs"]) + (c["finish_reason"] == "stop") for c in (first, second))
    assert answer["usage"]["completion_tokens"] == shown
    token = first["logprobs"][0]
    assert bytes(token["bytes"]).decode(errors="replace") == token["token"]
    assert len(token["top_logprobs"]) == 2
    assert token["top_logprobs"][0]["logprob"] >= token["logprob"]
    assert answer["timing"].keys() == {"load_ms", "queue_ms", "first_token_ms", "total_ms"}
    assert 0 < answer["timing"]["load_ms"] <= answer["timing"]["first_token_ms"] <= answer["timing"]["total_ms"]
    assert answer["receipt"]["adapter_sha256"] == ref["sha256"]


def test_a_stream_says_the_same(server: InferenceServer) -> None:
    body = server.body(n=2, temperature=1.0, seed=3, logprobs=True)
    whole = server.http.post("/generate", json=body).json()
    with server.http.stream("POST", "/generate", json=body | {"stream": True}) as response:
        *pieces, last = [(event.event, json.loads(event.data)) for event in EventSource(response).iter_sse()]
    assert {name for name, _ in pieces} == {"token"}
    assert last[0] == "done"
    for index, choice in enumerate(whole["choices"]):
        mine = [data for _, data in pieces if data["index"] == index]
        assert "".join(data["text"] for data in mine) == choice["text"]
        assert [token["id"] for data in mine for token in data["logprobs"]] == [t["id"] for t in choice["logprobs"]]
    for streamed, choice in zip(last[1]["choices"], whole["choices"], strict=True):
        # Who shared a pass with whom changes how sums are rounded.
        scores = [[score.pop("logprob") for score in one["logprobs"]] for one in (streamed, choice)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)
        assert streamed == choice


def test_echo_puts_the_prompt_and_its_log_probabilities_first(server: InferenceServer) -> None:
    answer = server.ask(prompt="help the order", echo=True, logprobs=True, max_tokens=3).json()
    plain = server.text(prompt="help the order", max_tokens=3)
    assert answer["text"] == "help the order" + plain
    tokens = answer["choices"][0]["logprobs"]
    assert tokens[0]["logprob"] is None
    assert all(token["logprob"] < 0 for token in tokens[1:])
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="replace") == answer["text"]


def test_several_prompts_are_each_continued_as_if_alone(server: InferenceServer) -> None:
    ref = server.publish("a", seed=1)
    same = {"adapter": ref, "temperature": 1.0, "seed": 3}
    prompts = ["help the order", "x", "the customer said that the order"]
    answer = server.ask(prompt=prompts, n=2, **same).json()
    alone = [server.ask(prompt=prompt, n=2, **same).json() for prompt in prompts]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == [choice["text"] for one in alone for choice in one["choices"]]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert answer["usage"][name] == sum(one["usage"][name] for one in alone)
    body = server.body(prompt=prompts, n=2, stream=True, **same)
    with server.http.stream("POST", "/generate", json=body) as response:
        *pieces, last = [json.loads(event.data) for event in EventSource(response).iter_sse()]
    assert last["choices"] == answer["choices"]
    assert ["".join(p["text"] for p in pieces if p["index"] == index) for index in range(6)] == texts
    error = server.error(400, prompt=["x", "x" * 300])
    assert (error["param"], "at most 127" in error["message"]) == ("prompt[1]", True)


def test_a_prompt_of_token_ids_is_continued_as_it_is(server: InferenceServer) -> None:
    scored = server.ask(prompt="help the order", echo=True, logprobs=True, max_tokens=3).json()
    ids = [token["id"] for token in scored["choices"][0]["logprobs"]][:-3]
    assert server.ask(prompt=ids, echo=True, logprobs=True, max_tokens=3).json()["choices"] == scored["choices"]
    several = server.ask(prompt=[ids, ids[:2]], max_tokens=3).json()
    assert several["usage"]["prompt_tokens"] == len(ids) + 2
    assert "help the order" + several["choices"][0]["text"] == scored["text"]
    # A token that controls the conversation may be said in this way: whoever sends ids means them.
    end = server.ask(prompt=[0, 1, 2, *ids], max_tokens=3).json()
    assert end["usage"]["prompt_tokens"] == len(ids) + 3
    for wrong, param in ([10**6], "prompt"), ([-1], "prompt"), ([ids, [10**6]], "prompt[1]"), ([[], ids], "prompt[0]"):
        assert server.error(400, prompt=wrong)["param"] == param
    assert server.text(max_tokens=2), "the engine lives"


def test_the_stop_that_ended_a_text_is_named(server: InferenceServer) -> None:
    same = {"regex": "[a-z]{8}", "max_tokens": 20, "temperature": 1.0, "seed": 1}
    stop = server.text(**same)[4:6]
    (choice,) = server.ask(**same, stop=["never said", stop]).json()["choices"]
    assert (choice["stop"], choice["finish_reason"]) == (stop, "stop")
    (choice,) = server.ask(**same, stop=["never said"]).json()["choices"]
    assert (choice["stop"], choice["finish_reason"]) == (None, "stop")


def test_a_json_schema_is_kept_to(server: InferenceServer) -> None:
    ref = server.publish("a", seed=1)
    for options in ({}, {"temperature": 2.0, "seed": 1}, {"adapter": ref, "temperature": 2.0, "seed": 2}):
        answer = server.ask(json_schema=SCHEMA, max_tokens=90, **options).json()
        assert answer["finish_reason"] == "stop", answer
        value = json.loads(answer["text"])
        assert list(value) == ["category", "urgent", "order"]
        assert value["category"] in ("billing", "shipping")
        assert isinstance(value["urgent"], bool)
        assert 0 <= value["order"] <= 999


def test_a_regex_is_kept_to_by_every_choice(server: InferenceServer) -> None:
    answer = server.ask(regex="(yes|no), order [0-9]{4}", max_tokens=40, n=2, temperature=1.5, seed=1).json()
    for choice in answer["choices"]:
        assert re.fullmatch("(yes|no), order [0-9]{4}", choice["text"]), choice
        assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "status", "param", "message"),
    [
        ({"prompt": "x" * 300}, 400, "prompt", "at most 127"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, 400, "messages", "at most 127"),
        ({"prompt": ""}, 400, "prompt", "empty"),
        ({"json_schema": {"type": "nonsense"}}, 400, "json_schema", "nonsense"),
        ({"regex": "(a"}, 400, "regex", "unclosed"),
        ({"logit_bias": {"999999": 1}}, 400, "logit_bias", "999999"),
        ({"stop_tokens": [999999]}, 400, "stop_tokens", "999999"),
        ({"top_p": 0}, 400, "top_p", "0"),
        ({"base": "other"}, 503, None, "other"),
    ],
)
def test_a_bad_request_fails_alone(
    server: InferenceServer, fields: dict[str, Any], status: int, param: str | None, message: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        good = pool.submit(server.text, max_tokens=40)
        error = server.error(status, **fields)
    assert error.get("param") == param
    assert message in error["message"]
    assert good.result() == server.text(max_tokens=40)


def test_a_missing_adapter_fails_alone(server: InferenceServer) -> None:
    ref = server.publish("a")
    assert server.error(503, adapter={**ref, "object_key": "nothing"})["code"] == "artifact_missing"
    assert server.text(adapter=ref)


def test_a_corrupt_artifact_fails_alone(server: InferenceServer) -> None:
    ref = server.publish("a")
    basis = server.runtime.basis
    broken = torch.randn(basis.row_length)
    broken[3] = torch.nan
    not_numbers = Adapter.from_row(broken, basis, rank=8, modules=set(basis.target_modules), base="tiny").to_zip()
    for other in (
        {**ref, "sha256": "0" * 64},
        server.put("no-zip", b"neither ZIP nor adapter"),
        server.put("nan", not_numbers),
    ):
        assert server.error(502, adapter=other)["code"] == "corrupt_artifact"
    assert server.text(adapter=ref)


def test_an_adapter_that_answers_otherwise_than_when_it_was_published_is_refused(server: InferenceServer) -> None:
    """Right bytes, right hashes, and yet not what its trainer saw: the canary that it was published with says so."""
    basis, runtime = server.runtime.basis, server.runtime
    row = 0.2 * torch.randn(basis.row_length, generator=torch.Generator().manual_seed(3))
    adapter = Adapter.from_row(row, basis, rank=8, modules=set(basis.target_modules), base="tiny")
    true = canary.compute(runtime, adapter)
    good = server.put("sings", replace(adapter, canary=true).to_zip())
    changed = {name: -delta for name, delta in adapter.delta.items()}
    bad = server.put("mute", replace(adapter, canary=true, delta=changed).to_zip())
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(server.text, adapter=good, max_tokens=40)
        error = server.error(409, adapter=bad)
    assert error["code"] == "canary_mismatch"
    assert "tolerance" in error["message"]
    # Not a word of it, whichever way it is asked for.
    for other in ({"stream": True}, {"strength": 0.5}, {"n": 2, "stream": True}):
        assert server.error(409, adapter=bad, max_tokens=1, **other)["code"] == "canary_mismatch"
    assert beside.result() == server.text(adapter=good, max_tokens=40)


def test_an_adapter_that_overflows_fails_alone_and_leaves_nothing_behind(server: InferenceServer) -> None:
    """Its numbers are finite, what the model makes of them is not; the next in its row must not inherit that."""
    wild, tame = server.publish("wild", scale=1e30), server.publish("tame", seed=1)
    alone = {"base": server.text(), "tame": server.text(adapter=tame)}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            others = [pool.submit(server.text), pool.submit(server.text, adapter=tame)]
            failure = server.error(502, adapter=wild)
            assert failure["code"] == "corrupt_artifact"
            assert "not a number" in failure["message"]
            assert [other.result() for other in others] == [alone["base"], alone["tame"]]
    assert (server.text(), server.text(adapter=tame)) == (alone["base"], alone["tame"])


def test_a_live_request_keeps_the_version_that_it_began_with(server: InferenceServer) -> None:
    """Loading and re-publishing while it runs, and evicting all that is idle, changes nothing of it."""
    first = server.publish("a", seed=1)
    alone = server.text(adapter=first, max_tokens=60)
    with ThreadPoolExecutor(1) as pool:
        server.steps.hold()
        live = pool.submit(server.text, adapter=first, max_tokens=60)
        assert server.steps.held.wait(60)
        second = server.publish("a", seed=2, version=2)
        server.steps.go.set()
        others = [server.text(adapter=server.publish(f"other-{i}", seed=i)) for i in range(3, 7)]
        newer = server.text(adapter=second, max_tokens=60)
        assert live.result() == alone
    assert newer != alone
    assert len(set(others)) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_row_at_the_next_step(server: InferenceServer, stream: bool) -> None:
    server.steps.hold(after=10)  # enough for a first piece of text, and far from the end
    body = server.body(max_tokens=100, stream=stream)
    if stream:
        with server.http.stream("POST", "/generate", json=body) as response:
            events = EventSource(response).iter_sse()  # kept: dropping it would be leaving already
            next(events)
            assert server.steps.held.wait(60)
    else:
        post_and_leave(server.http, "/generate", body, server.steps.held)
    assert server.clients.left.wait(60)  # or the text would be at its end before anybody knows
    assert server.engine.running == 1
    server.steps.go.set()
    assert server.steps.cancelled.wait(60)
    assert server.engine.running == 0
    assert server.text()


def test_a_cold_adapter_blocks_nobody(server: InferenceServer) -> None:
    cold = server.publish("slow")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.text, adapter=cold)
        assert server.gate.reached.wait(60)
        assert server.text()
        assert server.text(adapter=server.publish("warm"))
        assert not waiting.done()
        server.gate.open.set()
        assert waiting.result()


def test_a_full_queue_says_when_to_come_back_and_keeps_room_for_others(server: InferenceServer) -> None:
    """Six places: a flood takes three, and leaves three to the others."""
    server.steps.hold()
    with ThreadPoolExecutor(8) as pool:
        flood = [pool.submit(server.ask, tenant="flood", max_tokens=3) for _ in range(7)]
        refused = [done.result() for done in islice(as_completed(flood), 4)]
        assert [response.status_code for response in refused] == [429] * 4
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].json()["error"]["code"] == "overloaded"
        other = pool.submit(server.ask, tenant="other", max_tokens=3)
        assert server.steps.held.wait(60)
        server.steps.go.set()
        assert other.result().status_code == 200
    assert sorted(done.result().status_code for done in flood) == [200] * 3 + [429] * 4


def test_an_export_is_a_lora_that_adds_what_the_adapter_does(server: InferenceServer) -> None:
    ref = server.publish("leaver", seed=5)
    answer = server.http.post("/export", json={"base": "tiny", "adapter": ref, "format": "lora"})
    assert answer.status_code == 200, answer.text
    assert "adp-leaver-lora.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        config = json.loads(archive.read("adapter_config.json"))
        tensors = load(archive.read("adapter_model.safetensors"))
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 8)
    assert len(tensors) == 2 * len(server.runtime.basis.factors)


def test_exports_that_wait_hold_up_nobody_else_and_are_not_made_for_who_has_left(
    server: InferenceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are threads. A tenant that has too many is told so."""
    read: list[str] = []
    get = server.gate._get

    def noted(key: str) -> bytes:
        read.append(key)
        return get(key)

    monkeypatch.setattr(server.gate, "_get", noted)
    waits, all_wait, has_left = itertools.count(1), threading.Event(), threading.Event()
    came = threading.Event()

    async def watched(request: Request, work: Callable[[], Awaitable[Any]]) -> Any:
        """It is called with whatever has a place in the line."""
        came.set()
        if next(waits) == 50:
            all_wait.set()
        result = await unless_gone(request, work)
        if result is None:
            has_left.set()
        return result

    monkeypatch.setattr("inference.app.unless_gone", watched)
    slow, left, other = (server.publish(name) for name in ("slow", "left", "other"))

    def export(ref: dict[str, Any], tenant: str) -> int:
        asked = {"tenant": tenant, "base": "tiny", "adapter": ref, "format": "lora"}
        return server.http.post("/export", json=asked).status_code

    with ThreadPoolExecutor(50) as pool:
        made = [pool.submit(export, slow, "one")]
        try:
            assert server.gate.reached.wait(60)
            asked = {"tenant": "one", "base": "tiny", "adapter": left, "format": "lora"}
            came.clear()
            post_and_leave(server.http, "/export", asked, came)
            assert has_left.wait(60)
            made += [pool.submit(export, other, f"tenant {n}") for n in range(45)]
            many = [pool.submit(export, other, "one") for _ in range(4)]
            refused, still = wait(many, 60, FIRST_COMPLETED)
            assert ({done.result() for done in refused}, len(still)) == ({429}, 3)
            made += still
            assert all_wait.wait(60)
            looked_at = {"base": "tiny", "object_key": other["object_key"], "sha256": other["sha256"]}
            assert server.http.post("/inspect", json=looked_at).status_code == 200
        finally:
            server.gate.open.set()
        assert {done.result() for done in made} == {200}
    assert list(tmp_path.glob("tmp/*/*")) == []
    assert left["object_key"] not in read


def test_an_export_of_what_is_not_the_named_adapter_fails_and_leaves_no_file(
    server: InferenceServer, tmp_path: Path
) -> None:
    ref = server.publish("leaver", seed=5) | {"sha256": "0" * 64}
    answer = server.http.post("/export", json={"base": "tiny", "adapter": ref, "format": "merged"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "corrupt_artifact")
    assert list(tmp_path.glob("tmp/*/*")) == []


def test_only_our_own_processes_are_answered(server: InferenceServer) -> None:
    for path in ("/ready", "/bases"):
        response = httpx.get(f"{server.http.base_url}{path}", headers={"authorization": "Bearer x"})
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
    assert httpx.get(f"{server.http.base_url}/health").status_code == 200


def test_bodies_are_bounded(server: InferenceServer) -> None:
    answer = server.http.post("/generate", content=b" " * 17_000_000)
    assert answer.status_code == 413
    assert "over 16777216 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["osora", "lora"])
def test_a_deleted_adapter_is_erased_from_memory(server: InferenceServer, kind: str) -> None:
    """Once nobody uses it, also one that a request is being answered with when it is deleted."""
    ref = server.publish("a", seed=1)
    if kind == "lora":
        lora = server.http.post("/export", json={"base": "tiny", "adapter": ref, "format": "lora"}).content
        ref = server.put("l", lora, type="lora", basis_fingerprint=None)
    other = server.publish("b", seed=2)
    server.text(adapter=other)
    server.steps.hold(after=2)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(server.text, adapter=ref)
        assert server.steps.held.wait(60)
        assert server.http.get("/adapters").json() == {"data": sorted([ref["id"], other["id"]])}
        server.http.post("/forget", json={"adapters": [ref["id"]]}).raise_for_status()
        server.steps.go.set()
        assert answer.result(60)
    server.text(adapter=other)  # what was asked of the engine before has been done by then
    assert server.http.get("/adapters").json() == {"data": [other["id"]]}
    if kind == "osora":
        rows = server.engine.slots.bank.values.abs().sum(dim=1)
        assert int((rows > 0).sum()) == 1
    else:
        columns = server.engine.loras.bank.columns
        assert not any(side.any() for side in (*columns.A, *columns.Bt) if side is not None)
    # And one that nobody uses, between two steps.
    assert server.text(adapter={**ref, "id": "again"})
    server.http.post("/forget", json={"adapters": ["again", other["id"]]}).raise_for_status()
    assert server.text()
    assert server.http.get("/adapters").json() == {"data": []}


@pytest.mark.parametrize("kind", ["osora", "lora"])
def test_load_says_what_is_taken_of_the_banks(server: InferenceServer, kind: str) -> None:
    (before,) = server.http.get("/load").json()["data"]
    assert (before["base"], before["running"], before["waiting"]) == ("tiny", 0, 0)
    assert before["adapters"] == before["lora_ranks"] == 0
    assert before["adapter_slots"] >= before["rows"] == server.engine.rows
    ref = server.publish("a")
    if kind == "lora":
        lora = server.http.post("/export", json={"base": "tiny", "adapter": ref, "format": "lora"}).content
        ref = server.put("l", lora, type="lora", basis_fingerprint=None)
    server.text(adapter=ref)
    (after,) = server.http.get("/load").json()["data"]
    assert (after["adapters"], after["lora_ranks"] > 0) == ((1, False) if kind == "osora" else (0, True))
