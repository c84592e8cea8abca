"""Limits over HTTP: what is refused and how it is said, through each door; what is set, and by whom."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest

from api.app import create_app
from api.gateway import close
from api.server import Server
from registry.context import Registry
from registry.limits.wrong_keys import WRONG_A_MINUTE
from registry.settings import Settings
from registry.usage import days
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.integration.api.servers import running
from tests.support import redis_server
from tests.support.jobs import CHAT_ROW
from tests.support.redis_server import OwnServer
from tests.support.training_files import json_lines

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Fakes = dict[str, FakeInference]
ClientWith = Callable[..., httpx.Client]
PROMPT: dict[str, Any] = {"prompt": "Ticket:", "max_tokens": 100}
PURPOSE = {"purpose": "fine-tune"}
WINDOW = 36_000


@pytest.fixture(autouse=True)
def _long_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """No window ends during a test: windows begin with the minutes of the clock."""
    for seconds in ("counters.SECONDS", "window.SECONDS", "wrong_keys._SECONDS"):
        monkeypatch.setattr(f"registry.limits.{seconds}", WINDOW)


@pytest.fixture
def inference_urls(inference: Fakes) -> str:
    return next(iter(inference))


@pytest.fixture
def acme(client_with: ClientWith) -> httpx.Client:
    """A client of a tenant that is no operator."""
    return client_with("read", "train", "generate", tenant="acme")


def limit(operator: httpx.Client, **limits: Any) -> dict[str, Any]:
    answer = operator.put("/tenants/acme/limits", json=limits)
    assert answer.status_code == 200, answer.text
    set_limits: dict[str, Any] = answer.json()
    return set_limits


def test_requests_beyond_the_limit_are_refused_until_there_is_room(
    client: httpx.Client, acme: httpx.Client, client_with: ClientWith
) -> None:
    tenant = limit(client, requests_per_minute=3)["owner"]
    assert [acme.get("/jobs").status_code for _ in range(3)] == [200] * 3
    refused = acme.get("/jobs")
    error = error_of(refused, 429)
    assert error["code"] == "requests_per_minute"
    assert f"the tenant {tenant} may have 3 requests a minute" in error["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 2 * WINDOW
    assert refused.headers["x-ratelimit-limit-requests"] == "3"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"]
    # It is refused before its body is looked at, and in its door's shape.
    said = acme.post("/v1/messages", content=b"no JSON")
    assert said.status_code == 429
    assert said.json()["error"]["type"] == "rate_limit_error"
    assert said.headers["anthropic-ratelimit-requests-limit"] == "3"

    assert client.get("/jobs").status_code == 200  # another tenant's
    assert client.delete("/tenants/acme/limits").json()["overrides"] == {}
    assert acme.get("/jobs").status_code == 200


def test_tokens_are_reserved_and_settled_by_what_was_used(client: httpx.Client, acme: httpx.Client) -> None:
    limit(client, tokens_per_minute=150)
    for used in (5, 10, 15):  # 107 are reserved each time
        answer = acme.post("/generate", json=PROMPT)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-ratelimit-limit-tokens"] == "150"
        assert answer.headers["x-ratelimit-remaining-tokens"] == str(150 - used)
    refused = acme.post("/generate", json={**PROMPT, "max_tokens": 130})
    error = error_of(refused, 429)
    assert error["code"] == "tokens_per_minute"
    assert int(refused.headers["retry-after"]) >= 1
    larger = acme.post("/generate", json={**PROMPT, "n": 2})
    assert "207" in error_of(larger, 429)["message"]
    assert larger.headers["x-should-retry"] == "false"
    assert "retry-after" not in larger.headers


def test_a_stream_is_settled_and_frees_its_place_at_its_end(
    client: httpx.Client, acme: httpx.Client, fake: FakeInference
) -> None:
    limit(client, tokens_per_minute=150, concurrent_generations=1)
    for _ in range(3):
        with acme.stream("POST", "/v1/completions", json={"model": "osora-tiny", **PROMPT, "stream": True}) as stream:
            assert stream.headers["x-ratelimit-limit-tokens"] == "150"
            assert "billing" in stream.read().decode()
    fake.mood = "hanging"
    with acme.stream("POST", "/generate", json={**PROMPT, "stream": True}) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        error = error_of(acme.post("/generate", json=PROMPT), 429)
        assert error["code"] == "concurrent_generations"
    assert fake.abandoned.wait(60)
    fake.mood = "fine"
    # What was broken off has used its prompt and what came of it, 8 tokens.
    answer = _until_there_is_a_place(acme)
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(150 - 3 * 5 - 8 - 5)


def _until_there_is_a_place(acme: httpx.Client) -> httpx.Response:
    """The server hears of the client's end a moment after its inference server."""
    deadline = time.monotonic() + 60
    while (answer := acme.post("/generate", json=PROMPT)).status_code == 429:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.02)  # what is refused counts as a request, and of those there are only so many
    assert answer.status_code == 200, answer.text
    return answer


def test_the_place_of_a_stream_is_free_before_its_client_hears_of_its_end(
    client: httpx.Client, acme: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close_slowly(upstream: httpx.Response) -> None:
        await asyncio.sleep(0.5)
        await close(upstream)

    monkeypatch.setattr("api.generate.proxy.close", close_slowly)
    limit(client, concurrent_generations=1)
    for _ in range(2):
        answer = acme.post("/generate", json={**PROMPT, "stream": True})
        assert answer.status_code == 200, answer.text


def test_what_fails_costs_no_tokens(client: httpx.Client, acme: httpx.Client, fake: FakeInference) -> None:
    limit(client, tokens_per_minute=150)
    fake.mood = "busy"
    for _ in range(3):
        assert acme.post("/generate", json=PROMPT).status_code == 503
    fake.mood = "fine"
    assert acme.post("/generate", json=PROMPT).headers["x-ratelimit-remaining-tokens"] == "145"


def test_what_a_key_may_not_do_takes_nothing_from_its_tenants_other_keys(
    client: httpx.Client, acme: httpx.Client, client_with: ClientWith
) -> None:
    limit(client, requests_per_minute=20, tokens_per_minute=150)
    assert acme.get("/files").status_code == 200
    (key,) = client.get("/keys", params={"tenant": "acme"}).json()["data"]
    limits = {"requests_per_minute": 8, "tokens_per_minute": 50}
    assert client.put(f"/keys/{key['id']}/limits", json=limits).status_code == 200
    for _ in range(8):
        assert error_of(acme.post("/generate", json=PROMPT), 429)["code"] == "tokens_per_minute"
    for _ in range(20):
        assert error_of(acme.get("/files"), 429)["code"] == "requests_per_minute"
    answer = client_with("generate", tenant="acme").post("/generate", json=PROMPT)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ratelimit-remaining-requests"] == str(20 - 1 - 8 - 1)
    assert answer.headers["x-ratelimit-remaining-tokens"] == "145"


def test_nobody_shuts_itself_out(client: httpx.Client, acme: httpx.Client) -> None:
    keys = client.get("/keys", params={"tenant": "default"}).json()["data"]
    none = {"requests_per_minute": 0}
    assert error_of(client.put("/tenants/default/limits", json=none), 409)["code"] == "own_limit"
    refused = [client.put(f"/keys/{key['id']}/limits", json=none) for key in keys]
    assert "own_limit" in [answer.json()["error"]["code"] for answer in refused if answer.status_code == 409]
    assert client.get("/files").status_code == 200
    limit(client, requests_per_minute=0)
    assert error_of(acme.get("/files"), 429)["code"] == "requests_per_minute"


def test_anthropics_door_says_what_is_left(acme: httpx.Client) -> None:
    body = {"model": "osora-tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    answer = acme.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    for kind in ("requests", "tokens"):
        limit, left = (int(answer.headers[f"anthropic-ratelimit-{kind}-{of}"]) for of in ("limit", "remaining"))
        assert 0 < left < limit
        assert answer.headers[f"anthropic-ratelimit-{kind}-reset"].endswith("Z")


def test_a_budget_stops_new_generations_as_openai_says_it(
    url: str, client: httpx.Client, acme: httpx.Client, registry: Registry
) -> None:
    limit(client, tokens_per_month=1000)
    assert acme.post("/generate", json=PROMPT).status_code == 200
    tenant = client.get("/tenants/acme").json()["id"]
    with registry.transaction() as session:
        row = {"tenant_id": tenant, "key_id": "key-1", "base": "osora-tiny", "adapter_id": "", "kind": "chat"}
        days.add(session, [{**row, "day": days.day_of(days.clock(session)), "prompt_tokens": 1000}])
    limit(client, tokens_per_month=1000)  # nothing of before is remembered
    key = acme.headers["authorization"].removeprefix("Bearer ")
    asked: list[httpx.Response] = []
    http = httpx.Client(event_hooks={"response": [asked.append]})
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=2, http_client=http) as unmodified:
        with pytest.raises(openai.RateLimitError) as refused:
            unmodified.chat.completions.create(model="osora-tiny", messages=[{"role": "user", "content": "Hi"}])
        assert refused.value.code == "insufficient_quota"
        assert "tokens_per_month" in refused.value.message
    assert len(asked) == 1  # its client knows that trying again is of no use
    assert client.get("/tenants/acme/limits").json()["used"]["tokens_per_month"] == 1000


def test_openais_client_waits_as_long_as_it_is_told(url: str, client: httpx.Client, acme: httpx.Client) -> None:
    limit(client, concurrent_generations=0)
    key = acme.headers["authorization"].removeprefix("Bearer ")
    asked: list[httpx.Response] = []

    def note(response: httpx.Response) -> None:
        asked.append(response)
        limit(client)  # there is room again

    with openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=1, http_client=httpx.Client(event_hooks={"response": [note]})
    ) as unmodified:
        unmodified.completions.create(model="osora-tiny", prompt="Hi")
    assert [response.status_code for response in asked] == [429, 200]
    assert asked[0].headers["retry-after"] == "1"


def test_an_upload_beyond_the_quota_ends_while_it_comes(client: httpx.Client, acme: httpx.Client) -> None:
    limit(client, stored_bytes=200)
    large = json_lines([CHAT_ROW] * 1500)
    form = httpx.Request("POST", "http://x", files={"file": ("train.jsonl", large)}, data={"purpose": "fine-tune"})
    pieces = form.read()

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(pieces), 10_000):
            yield pieces[start : start + 10_000]

    content_type = {"content-type": form.headers["content-type"]}
    for body in (pieces, slowly()):  # announced, and not
        refused = acme.post("/files", content=body, headers=content_type)
        assert error_of(refused, 429)["code"] == "stored_bytes"
        assert refused.headers["x-should-retry"] == "false"
    small = {"file": ("train.jsonl", json_lines([CHAT_ROW] * 3))}
    assert error_of(acme.post("/files", files=small, data=PURPOSE), 429)["code"] == "stored_bytes"
    upload = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 201, "mime_type": "application/jsonl"}
    assert error_of(acme.post("/uploads", json=upload), 429)["code"] == "stored_bytes"
    assert acme.get("/files").json()["data"] == []
    limit(client)
    assert acme.post("/files", files=small, data=PURPOSE).status_code == 200


def test_so_many_uploads_come_at_once(client: httpx.Client, acme: httpx.Client) -> None:
    limit(client, concurrent_uploads=0)
    sent = {"file": ("train.jsonl", json_lines([CHAT_ROW]))}
    assert error_of(acme.post("/files", files=sent, data=PURPOSE), 429)["code"] == "concurrent_uploads"
    limit(client, concurrent_uploads=1)
    for _ in range(2):
        assert acme.post("/files", files=sent, data=PURPOSE).status_code == 200


def test_completing_an_upload_takes_a_place_and_no_room(client: httpx.Client, acme: httpx.Client) -> None:
    content = json_lines([CHAT_ROW])
    wanted = {"filename": "rows.jsonl", "bytes": len(content), "mime_type": "text/jsonl", **PURPOSE}
    upload = acme.post("/uploads", json=wanted).json()
    part = acme.post(f"/uploads/{upload['id']}/parts", files={"data": content}).json()
    limit(client, concurrent_uploads=0, stored_bytes=len(content))
    complete = f"/uploads/{upload['id']}/complete"
    assert error_of(acme.post(complete, json={"part_ids": [part["id"]]}), 429)["code"] == "concurrent_uploads"
    limit(client, concurrent_uploads=1, stored_bytes=len(content))
    answer = acme.post(complete, json={"part_ids": [part["id"]]})
    assert answer.status_code == 200, answer.text


def test_jobs_beyond_the_limit_are_refused(client: httpx.Client, acme: httpx.Client) -> None:
    limit(client, queued_jobs=2)
    sent = {"file": ("train.jsonl", json_lines([CHAT_ROW]))}
    file = acme.post("/files", files=sent, data={"purpose": "fine-tune"}).json()["id"]
    body = {"model": "osora-tiny", "training_file": file}
    made = [acme.post("/jobs", json={**body, "seed": seed}) for seed in range(3)]
    assert [answer.status_code for answer in made] == [200, 200, 429]
    error = error_of(made[2], 429)
    assert error["code"] == "queued_jobs"
    assert int(made[2].headers["retry-after"]) > 0
    assert client.get("/tenants/acme/limits").json()["used"]["queued_jobs"] == 2
    assert acme.post(f"/jobs/{made[0].json()['id']}/cancel").status_code == 200
    assert acme.post("/jobs", json={**body, "seed": 2}).status_code == 200
    limit(client)
    refused = error_of(acme.post("/jobs", json={**body, "osora": {"priority": "high"}}), 403)
    assert refused["code"] == "priority_not_allowed"


def test_who_may_see_and_set_limits(client: httpx.Client, acme: httpx.Client, client_with: ClientWith) -> None:
    admin = client_with("admin", tenant="acme")
    stranger = client_with("admin", tenant="stranger")
    assert limit(client, stored_bytes="unlimited", queued_jobs=7)["overrides"] == {
        "stored_bytes": "unlimited",
        "queued_jobs": 7,
    }
    seen = acme.get("/tenants/acme/limits").json()
    assert (seen["limits"]["stored_bytes"], seen["limits"]["queued_jobs"]) == ("unlimited", 7)
    assert error_of(stranger.get("/tenants/acme/limits"), 404)["code"] == "tenant_not_found"
    assert error_of(admin.put("/tenants/acme/limits", json={"queued_jobs": 9}), 403)["code"] == "insufficient_scope"
    assert error_of(client.put("/tenants/nobody/limits", json={}), 404)["code"] == "tenant_not_found"
    assert error_of(client.put("/tenants/acme/limits", json={"queued_jobs": -1}), 400)["param"] == "queued_jobs"

    key = next(found["id"] for found in admin.get("/keys").json()["data"] if "generate" in found["scopes"])
    for who in (stranger, acme):
        assert who.put(f"/keys/{key}/limits", json={"requests_per_minute": 2}).status_code in (403, 404)
    assert admin.put(f"/keys/{key}/limits", json={"requests_per_minute": 2}).status_code == 200
    assert [acme.get("/jobs").status_code for _ in range(3)][-1] == 429
    refused = error_of(acme.get("/jobs"), 429)
    assert f"the key {key} may have 2 requests a minute" in refused["message"]
    assert admin.get("/jobs").status_code == 200  # its tenant has room
    assert admin.delete(f"/keys/{key}/limits").json()["limits"]["requests_per_minute"] == "unlimited"
    assert acme.get("/jobs").status_code == 200


def test_guessing_keys_gets_slow_and_a_good_key_does_not(anonymous: httpx.Client, client: httpx.Client) -> None:
    guesses = [
        anonymous.get("/jobs", headers={"authorization": f"Bearer osk-{number}"}).status_code
        for number in range(WRONG_A_MINUTE + 1)
    ]
    assert guesses == [401] * WRONG_A_MINUTE + [429]
    assert client.get("/jobs").status_code == 200


class TestSharedCount:
    """Several API processes and one Redis."""

    @pytest.fixture
    def redis(self) -> Iterator[OwnServer]:
        with redis_server.own_server(network=True) as server:
            yield server

    @pytest.fixture
    def broker(self, redis: OwnServer, monkeypatch: pytest.MonkeyPatch) -> str:
        # A Redis that is slow to answer is not counted in: here it may be, on a loaded machine.
        monkeypatch.setattr("registry.limits.counters._ANSWER_SECONDS", 60)
        return redis.url

    def test_two_processes_share_one_count_and_none_of_them_needs_it(
        self, url: str, settings: Settings, redis: OwnServer, client: httpx.Client, acme: httpx.Client
    ) -> None:
        with ExitStack() as stack:
            other_url = stack.enter_context(running(Server(create_app(settings), settings)))
            other = stack.enter_context(httpx.Client(base_url=other_url, headers=acme.headers, timeout=60))
            limit(client, requests_per_minute=4)
            statuses = [who.get("/jobs").status_code for _ in range(3) for who in (acme, other)]
            assert statuses == [200] * 4 + [429] * 2
            redis.kill()
            assert acme.get("/jobs").status_code == 200
            assert other.get("/jobs").status_code == 200
