"""Generation: what the inference server is asked, and how its answers and its failures come through."""

import json
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from api.gateway import InferenceGateway
from registry.context import Registry
from registry.models import Adapter
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import BUSY, FULL, REFUSAL, RESULT, FakeInference
from tests.support.jobs import claim, record_checkpoint, submit
from tests.support.leaving import post_and_leave

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

DEEP: dict[str, Any] = {}
for _ in range(64):
    DEEP = {"properties": DEEP}
Fakes = dict[str, FakeInference]


@pytest.fixture
def inference_urls(inference: Fakes) -> str:
    return ", ".join(inference)


@pytest.fixture
def ranked(inference: Fakes, adapter: Adapter) -> list[FakeInference]:
    """The servers in the order in which this adapter prefers them."""
    with httpx.Client() as unused:
        gateway = InferenceGateway(list(inference), "", unused)  # type: ignore[arg-type]
        return [inference[url] for url in gateway.ranked(adapter.id)]


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/generate", json={"prompt": "I was charged twice.", **body})


def test_what_is_asked_for(client: httpx.Client, ranked: list[FakeInference], adapter: Adapter) -> None:
    messages = [{"role": "user", "content": "I was charged twice."}]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    own = {"strength": 0.5, "seed": 7, "n": 2, "logprobs": True, "top_logprobs": 3, "logit_bias": {"17": -5}}
    own |= {"stop_tokens": [3], "json_schema": schema, "repetition_penalty": 1.1, "frequency_penalty": 0.5}
    body = {"adapter_id": adapter.name, "messages": messages, "stop": "\n", **own}
    response = client.post("/generate", json=body)
    assert (response.status_code, response.json()) == (200, RESULT)
    (asked,) = ranked[0].asked
    assert asked.pop("request_id").startswith("gen-")
    assert asked.pop("key").startswith("key-")
    assert asked == {
        "kind": "generate",
        "base": "osora-tiny",
        "tenant": adapter.tenant_id,
        "adapter": {
            "id": adapter.id,
            "name": adapter.name,
            "version": 1,
            "job_id": adapter.job_id,
            "step": 9,
            "object_key": adapter.object_key,
            "sha256": adapter.sha256,
            "base_fingerprint": "base-hash",
            "basis_fingerprint": "basis-hash",
            "type": "osora",
        },
        "alias": None,
        "messages": messages,
        "max_tokens": 128,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "echo": False,
        "stop": ["\n"],
        "stream": False,
        **own,
    }


def test_an_empty_prompt_is_passed_on_like_any_other(client: httpx.Client, inference: Fakes) -> None:
    """Whether there is anything to begin with is for the base's tokenizer to say."""
    assert ask(client, prompt="", echo=True).json() == RESULT
    (asked,) = (body for fake in inference.values() for body in fake.asked)
    assert (asked["prompt"], asked["echo"]) == ("", True)


def test_nulls_are_what_leaving_out_is(client: httpx.Client, inference: Fakes) -> None:
    names = ("temperature", "n", "max_tokens", "logprobs", "top_p", "seed", "stop", "stream", "strength", "logit_bias")
    assert ask(client, **dict.fromkeys(names)).json() == RESULT
    assert ask(client).json() == RESULT
    first, second = ({**body, "request_id": ""} for fake in inference.values() for body in fake.asked)
    assert first == second


def test_a_checkpoint_is_called_like_an_adapter(
    client: httpx.Client, ranked: list[FakeInference], registry: Registry, principal: Principal
) -> None:
    job = submit(registry, principal, suffix="triage")
    attempt = claim(registry, job)
    with registry.transaction() as session:
        for step in (5, 10, 15):
            record_checkpoint(session, attempt, step)
    newest, _ = client.get(f"/jobs/{job.id}/checkpoints").json()["data"]
    for name in (newest["id"], newest["fine_tuned_model_checkpoint"]):
        assert client.post("/generate", json={"adapter_id": name, "prompt": "x"}).json() == RESULT
    asked = [asked["adapter"] for fake in ranked for asked in fake.asked]
    assert len(asked) == 2
    for ref in asked:
        assert (ref["id"], ref["name"]) == (newest["id"], newest["fine_tuned_model_checkpoint"])
        assert (ref["job_id"], ref["step"], ref["object_key"]) == (job.id, 15, f"checkpoints/{job.id}/1/15.zip")
    superseded = newest["fine_tuned_model_checkpoint"].replace("step-15", "step-5")
    error = error_of(client.post("/generate", json={"adapter_id": superseded, "prompt": "x"}), 404)
    assert error["code"] == "checkpoint_not_found"
    assert "those of step 10, 15" in error["message"]


def test_the_base_without_an_adapter(client: httpx.Client, inference: Fakes) -> None:
    for _ in range(100):  # each goes to either, by chance
        assert ask(client).json() == RESULT
        if all(fake.asked for fake in inference.values()):
            break
    asked = [body for fake in inference.values() for body in fake.asked]
    assert {(body["base"], body["adapter"]) for body in asked} == {("osora-tiny", None)}
    assert all(fake.asked for fake in inference.values()), "requests to the base spread"


def test_an_adapter_stays_where_it_is_warm(client: httpx.Client, ranked: list[FakeInference], adapter: Adapter) -> None:
    for _ in range(5):
        ask(client, adapter_id=adapter.id)
    assert [len(fake.asked) for fake in ranked] == [5, 0]


def test_streaming(client: httpx.Client, adapter: Adapter) -> None:
    body = {"prompt": "x", "adapter_id": adapter.id, "stream": True}
    with client.stream("POST", "/generate", json=body) as response:
        events = [(event.event, json.loads(event.data)) for event in EventSource(response).iter_sse()]
    assert events == [
        ("token", {"index": 0, "text": "category: "}),
        ("token", {"index": 0, "text": "billing"}),
        ("done", RESULT),
    ]
    assert response.headers["x-accel-buffering"] == "no"


def test_tokens_come_as_they_are_made(client: httpx.Client, ranked: list[FakeInference], adapter: Adapter) -> None:
    ranked[0].mood = "hanging"
    body = {"prompt": "x", "adapter_id": adapter.id, "stream": True}
    with client.stream("POST", "/generate", json=body) as response:
        assert json.loads(next(EventSource(response).iter_sse()).data)["text"] == "category: "
    client.close()
    assert ranked[0].abandoned.wait(60), "a client that leaves ends the request behind it"


def test_a_client_that_gives_up_waiting(client: httpx.Client, ranked: list[FakeInference], adapter: Adapter) -> None:
    ranked[0].mood = "hanging"
    post_and_leave(client, "/generate", {"prompt": "x", "adapter_id": adapter.id}, ranked[0].reached)
    assert ranked[0].abandoned.wait(60)


def test_typed_errors_pass_unchanged(client: httpx.Client, ranked: list[FakeInference], adapter: Adapter) -> None:
    ranked[0].mood = "refusing"
    for stream in (False, True):
        response = ask(client, adapter_id=adapter.id, stream=stream)
        assert (response.status_code, response.json()) == (400, REFUSAL)
    assert ranked[1].asked == []


def test_a_busy_server_spills_over(client: httpx.Client, ranked: list[FakeInference], adapter: Adapter) -> None:
    ranked[0].mood = "busy"
    assert ask(client, adapter_id=adapter.id).json() == RESULT
    assert [len(fake.asked) for fake in ranked] == [1, 1]
    ranked[1].mood = "busy"
    response = ask(client, adapter_id=adapter.id)
    assert (response.status_code, response.json()) == (503, BUSY)
    assert response.headers["retry-after"] == "7"


def test_a_full_server_spills_over_and_says_when_to_come_back(
    client: httpx.Client, ranked: list[FakeInference], adapter: Adapter
) -> None:
    ranked[0].mood = "full"
    assert ask(client, adapter_id=adapter.id).json() == RESULT
    ranked[1].mood = "full"
    response = ask(client, adapter_id=adapter.id)
    assert (response.status_code, response.json()) == (429, FULL)
    assert response.headers["retry-after"] == "1"


class TestServersThatAreGone:
    @pytest.fixture
    def inference_urls(self, inference: Fakes) -> str:
        return f"http://127.0.0.1:9,{next(iter(inference))},http://127.0.0.1:10"

    def test_they_are_passed_over(self, client: httpx.Client) -> None:
        for _ in range(6):
            assert ask(client).json() == RESULT


class TestNoServer:
    @pytest.fixture
    def inference_urls(self) -> str:
        return "http://127.0.0.1:9"

    def test_it_says_so(self, client: httpx.Client) -> None:
        response = ask(client)
        assert error_of(response, 503)["code"] == "inference_unavailable"
        assert response.headers["retry-after"]


def test_a_server_that_breaks_off_in_the_middle(
    client: httpx.Client, ranked: list[FakeInference], adapter: Adapter
) -> None:
    ranked[0].mood = "breaking"
    body = {"prompt": "x", "adapter_id": adapter.id, "stream": True}
    with client.stream("POST", "/generate", json=body) as response:
        events = list(EventSource(response).iter_sse())
    assert [event.event for event in events] == ["token", "error"]
    assert json.loads(events[1].data)["error"]["code"] == "inference_unavailable"


def test_a_token_that_does_not_match(client: httpx.Client, inference: Fakes) -> None:
    for fake in inference.values():
        fake._token = "another"
    assert error_of(ask(client), 503)["code"] == "inference_refused"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"adapter_id": "adp-nothing"}, 404, "adapter_id"),
        ({"base": "gpt-9"}, 404, "base"),
        ({"messages": [{"role": "user", "content": "x"}]}, 400, None),
        ({"prompt": None}, 400, None),
        ({"prompt": None, "messages": [{"role": "boss", "content": "x"}]}, 400, "messages[0].role"),
        (
            {"prompt": None, "messages": [{"role": "user", "content": "x", "name": "y"}]},
            400,
            "messages[0].name",
        ),
        ({"strength": 2.0}, 400, None),
        ({"strength": 1e30}, 400, "strength"),
        ({"json_schema": {"enum": ["x" * 70_000]}}, 400, "json_schema"),
        ({"json_schema": {"a": DEEP}}, 400, "json_schema"),
        ({"regex": "a" * 20_000}, 400, "regex"),
        ({"stop": ["x"] * 65}, 400, "stop"),
        ({"stop_tokens": [1] * 1025}, 400, "stop_tokens"),
        ({"max_tokens": 2**31}, 400, "max_tokens"),
        ({"stop": ["a", ""]}, 400, "stop[1]"),
        ({"top_p": 0}, 400, "top_p"),
        ({"temperature": -1}, 400, "temperature"),
        ({"max_token": 3}, 400, "max_token"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty"),
        ({"presence_penalty": 3}, 400, "presence_penalty"),
        ({"logit_bias": {"4": 101}}, 400, "logit_bias.4"),
        ({"logit_bias": {"a": 1}}, 400, "logit_bias.a"),
        ({"stop_tokens": [-1]}, 400, "stop_tokens[0]"),
        ({"n": 0}, 400, "n"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
        ({"prompt": None, "messages": [{"role": "user", "content": "x"}], "echo": True}, 400, "echo"),
        ({"json_schema": {}, "regex": "a+"}, 400, "regex"),
        ({"json_schema": "object"}, 400, "json_schema"),
    ],
)
def test_what_is_refused(
    client: httpx.Client, inference: Fakes, body: dict[str, Any], status: int, param: str | None
) -> None:
    error = error_of(ask(client, **body), status)
    assert error["param"] == param
    for value in body.values():
        assert not isinstance(value, str) or value[:50] in error["message"]
    assert not any(fake.asked for fake in inference.values())


def test_an_adapter_on_another_base(client: httpx.Client, adapter: Adapter) -> None:
    assert error_of(ask(client, adapter_id=adapter.id, base="other"), 400)["param"] == "base"
    assert ask(client, adapter_id=adapter.id, base="osora-tiny").status_code == 200


def test_a_job_in_place_of_an_adapter(
    client: httpx.Client, registry: Registry, principal: Principal, adapter: Adapter
) -> None:
    waiting = submit(registry, principal)
    error = error_of(ask(client, adapter_id=waiting.id), 404)
    assert "status: queued" in error["message"]
    assert adapter.id in error_of(ask(client, adapter_id=adapter.job_id), 404)["next_action"]


def test_bases(client: httpx.Client) -> None:
    (base,) = client.get("/bases").json()["data"]
    assert (base["name"], base["loaded"], base["parameters"]) == ("osora-tiny", True, 7)


def test_ready(anonymous: httpx.Client) -> None:
    response = anonymous.get("/ready")
    assert response.status_code == 200
    assert response.json()["checks"]["inference"]["detail"] == "2 of 2 ready"
