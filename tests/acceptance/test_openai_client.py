"""OpenAI's own client, unmodified, against the real service: a team changes `base_url` and nothing else."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import openai as package
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from osora.errors import OsoraAPIError
from tests.acceptance.conftest import BASE, Service, dataset, queue_at_rest

MESSAGES: Any = [{"role": "user", "content": "Which city?"}]


class Caller:
    """Calls either client: what the asynchronous one gives is awaited."""

    def __init__(self, client: OpenAI | AsyncOpenAI, runner: asyncio.Runner) -> None:
        self.client: Any = client
        self.runner = runner

    def __call__(self, method: Callable[..., Any], *given: Any, **asked: Any) -> Any:
        made = method(*given, **asked)
        return self.runner.run(_awaited(made)) if inspect.isawaitable(made) else made

    def every(self, method: Callable[..., Any], *given: Any, **asked: Any) -> list[Any]:
        """All items of all pages, or all chunks of a stream."""
        made = method(*given, **asked)
        return list(made) if hasattr(made, "__iter__") else self.runner.run(_collected(made))

    def chat(self, model: str, **asked: Any) -> Any:
        asked = {"messages": MESSAGES, "temperature": 0, "max_completion_tokens": 12, **asked}
        return self(self.client.chat.completions.create, model=model, **asked)


async def _awaited(made: Any) -> Any:
    return await made


async def _collected(made: Any) -> list[Any]:
    source = made if hasattr(made, "__aiter__") else await made
    return [item async for item in source]


@pytest.fixture(params=[OpenAI, AsyncOpenAI])
def caller(request: pytest.FixtureRequest, service: Service) -> Iterator[Caller]:
    client = request.param(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0, timeout=60)
    with asyncio.Runner() as runner, ExitStack() as stack:
        caller = Caller(client, runner)
        stack.callback(caller, client.close)
        yield caller


def test_files_jobs_and_models(caller: Caller, service: Service, tmp_path: Path) -> None:
    client = caller.client
    path = dataset(tmp_path / "cities.jsonl", "Lima")
    files = [caller(client.files.create, file=path, purpose="fine-tune").id for _ in range(3)]
    assert caller(client.files.wait_for_processing, files[0]).status == "processed"
    assert caller(client.files.retrieve, files[0]).filename == path.name
    assert caller(client.files.content, files[0]).read() == path.read_bytes()
    assert [file.id for file in caller.every(client.files.list, limit=2)][:3] == files[::-1]
    metadata = {"run": path.parent.name}
    with queue_at_rest(service):  # a job that trains would have a checkpoint, or be over, by now
        job = caller(client.fine_tuning.jobs.create, model=BASE, training_file=files[0], metadata=metadata)
        assert caller(client.fine_tuning.jobs.cancel, job.id).id == job.id
    found = caller.every(client.fine_tuning.jobs.list, metadata={"run": path.parent.name})
    assert [one.id for one in found] == [job.id]
    assert caller(client.fine_tuning.jobs.retrieve, job.id).training_file == files[0]
    assert caller.every(client.fine_tuning.jobs.list_events, job.id, limit=1)
    assert caller.every(client.fine_tuning.jobs.checkpoints.list, job.id) == []
    assert BASE in [model.id for model in caller.every(client.models.list)]
    for file_id in files[1:]:
        assert caller(client.files.delete, file_id).deleted


def test_a_file_in_parts_that_expires(caller: Caller, tmp_path: Path) -> None:
    client = caller.client
    path = dataset(tmp_path / "cities.jsonl", "Lima")
    asked: dict[str, Any] = {"mime_type": "text/jsonl", "purpose": "fine-tune", "part_size": 500}
    whole = path.read_bytes()
    for given in ({"file": path}, {"file": whole, "filename": path.name, "bytes": len(whole)}):
        upload = caller(client.uploads.upload_file_chunked, **given, **asked)
        assert upload.status == "completed"
        assert caller(client.files.content, upload.file.id).read() == whole
    expires_after = {"anchor": "created_at", "seconds": 3600}
    file = caller(client.files.create, file=path, purpose="fine-tune", expires_after=expires_after)
    assert file.expires_at == file.created_at + 3600


def test_a_chat(caller: Caller, trained: str) -> None:
    answer = caller.chat(
        trained, messages=[{"role": "developer", "content": [{"type": "text", "text": ""}]}, *MESSAGES]
    )
    assert answer.choices[0].message.role == "assistant"
    answer = caller.chat(trained)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Oslo", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.osora["receipt"]["adapter_name"] == trained
    assert caller.chat(BASE).choices[0].message.content != "Oslo"
    followed = [*MESSAGES, answer.choices[0].message, *MESSAGES]
    assert caller.chat(trained, messages=followed).choices[0].message.content
    ended = caller.chat(BASE, max_tokens=1, max_completion_tokens=package.omit)
    assert (ended.choices[0].finish_reason, ended.usage.completion_tokens) == ("length", 1)


def test_a_streamed_chat(caller: Caller, trained: str) -> None:
    asked = {"model": trained, "messages": MESSAGES, "temperature": 0, "stream": True, "logprobs": True}
    chunks = caller.every(
        caller.client.chat.completions.create, **asked, stream_options={"include_usage": True}, max_completion_tokens=12
    )
    *said, counted = chunks
    assert said[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == "Oslo"
    assert said[-1].choices[0].finish_reason == "stop"
    assert counted.choices == []
    scored = [score for chunk in said if chunk.choices[0].logprobs for score in chunk.choices[0].logprobs.content]
    assert b"".join(bytes(score.bytes) for score in scored) == b"Oslo"
    assert counted.usage.completion_tokens >= len(scored)


def test_choices_seeds_and_likelihoods(caller: Caller) -> None:
    asked = {"n": 3, "seed": 5, "temperature": 1.5, "logprobs": True, "top_logprobs": 2}
    first, again = (caller.chat(BASE, **asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) > 1
    for choice in first.choices:
        assert all(score.logprob <= 0 and len(score.top_logprobs) == 2 for score in choice.logprobs.content)
        said = b"".join(bytes(score.bytes) for score in choice.logprobs.content)
        assert choice.message.content.strip() in said.decode(errors="replace")


def test_stops_biases_and_penalties(caller: Caller, trained: str) -> None:
    assert caller.chat(trained, stop="s").choices[0].message.content == "O"

    def tokens(**asked: Any) -> list[str]:
        asked = {"prompt": "The city of", "temperature": 0, "logprobs": 0, "max_tokens": 24, **asked}
        answer = caller(caller.client.completions.create, model=BASE, **asked)
        found: list[str] = answer.choices[0].logprobs.tokens
        return found

    assert len(set(tokens(logit_bias={"40": 100}))) == 1, "nothing but that token"
    free, bound = (len(set(tokens(frequency_penalty=by, presence_penalty=by))) for by in (-2, 2))
    assert free < bound, "penalties make an answer more varied"


class City(BaseModel):
    name: Literal["Oslo", "Lima"]
    is_capital: bool


def test_answers_of_a_form(caller: Caller, trained: str) -> None:
    asked = {"model": trained, "messages": MESSAGES, "temperature": 0, "max_completion_tokens": 64}
    parsed = caller(caller.client.chat.completions.parse, **asked, response_format=City)
    assert isinstance(parsed.choices[0].message.parsed, City)
    answer = caller.chat(trained, max_completion_tokens=64, response_format={"type": "json_object"})
    said = answer.choices[0].message.content
    assert said.lstrip().startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(said), dict)


def test_completions(caller: Caller) -> None:
    asked = {"model": BASE, "prompt": "The capital of Norway", "temperature": 0, "max_tokens": 8}
    create = caller.client.completions.create
    whole = caller(create, **asked)
    assert (whole.object, whole.usage.completion_tokens) == ("text_completion", 8)
    chunks = caller.every(create, **asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    scored = caller(create, **asked, echo=True, logprobs=2).choices[0]
    assert scored.text == asked["prompt"] + whole.choices[0].text
    assert scored.logprobs.token_logprobs[0] is None
    starts = scored.logprobs.text_offset
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert len(starts) == len(scored.logprobs.tokens) == len(scored.logprobs.top_logprobs)


def test_completions_of_several_prompts(caller: Caller) -> None:
    asked = {"model": "osora-tiny", "temperature": 0, "max_tokens": 8}
    create = caller.client.completions.create
    prompts = ["The capital of Norway", "Order 48213"]
    alone = [caller(create, **asked, prompt=prompt) for prompt in prompts]
    answer = caller(create, **asked, prompt=prompts, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [one.choices[0].text for one in alone for _ in range(2)]
    assert answer.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    chunks = caller.every(create, **asked, prompt=prompts, stream=True)
    for index, one in enumerate(alone):
        said = [chunk.choices[0].text for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(said) == one.choices[0].text
    with pytest.raises(package.BadRequestError) as refused:
        caller(create, **asked, prompt=[[1, 2], [10**8]])
    assert refused.value.param == "prompt[1]"


def test_what_goes_wrong_raises_what_it_raises_there(caller: Caller, service: Service, trained: str) -> None:
    client = caller.client
    with pytest.raises(package.AuthenticationError):
        caller(client.with_options(api_key="osk-wrong").models.list)
    reader = service.sdk.keys.create(name="test", tenant="default", scopes=["read"])["key"]
    with pytest.raises(package.PermissionDeniedError):
        caller(client.with_options(api_key=reader).models.delete, trained)
    with pytest.raises(package.NotFoundError) as missing:
        caller.chat("gpt-4o-mini")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id
    with pytest.raises(package.BadRequestError) as refused:
        caller.chat(trained, reasoning_effort="low")
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "reasoning_effort")
    with pytest.raises(package.BadRequestError) as refused:
        caller.chat(trained, messages=[{"role": "user", "content": "word " * 5000}])
    assert refused.value.param == "messages"
    with pytest.raises(package.BadRequestError) as refused:
        caller.chat(
            trained, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 1}}}
        )
    assert refused.value.param == "response_format"
    with pytest.raises(package.BadRequestError) as refused:
        caller(client.files.create, file=("a.jsonl", b"{]\n"), purpose="fine-tune")
    assert refused.value.code == "invalid_file"


def test_what_a_job_has_made_and_its_model_is_deleted(caller: Caller, service: Service, tmp_path: Path) -> None:
    client = caller.client
    file = caller(client.files.create, file=dataset(tmp_path / "rome.jsonl", "Rome"), purpose="fine-tune")
    hyperparameters = {"n_epochs": 1, "batch_size": "auto", "learning_rate_multiplier": 1}
    job = caller(
        client.fine_tuning.jobs.create,
        model=BASE,
        training_file=file.id,
        hyperparameters=hyperparameters,
        extra_body={"osora": {"rank": 8}},
    )
    for _ in service.sdk.jobs.events(job.id):
        pass
    job = caller(client.fine_tuning.jobs.retrieve, job.id)
    # "auto" is shown as what it came to, and our own settings beside OpenAI's.
    assert isinstance(job.hyperparameters.batch_size, int)
    assert job.method.supervised.hyperparameters.batch_size == job.hyperparameters.batch_size
    assert job.osora["settings"] == {"rank": 8}
    assert (job.osora["resolved"]["rank"], job.osora["resolved"]["batch_size"]) == (8, job.hyperparameters.batch_size)
    (result_id,) = job.result_files
    result = caller(client.files.retrieve, result_id)
    assert (result.purpose, result.status) == ("fine-tune-results", "processed")
    assert result_id in [one.id for one in caller.every(client.files.list, purpose="fine-tune-results")]
    content = caller(client.files.content, result_id).read()
    assert content.startswith(b"step,")
    assert len(content) == result.bytes
    name = job.fine_tuned_model
    assert caller(client.models.retrieve, name).id == name
    assert caller(client.models.delete, name).deleted
    with pytest.raises(package.NotFoundError):
        caller.chat(name)


def test_a_name_that_callers_know_stands_for_another_model(caller: Caller, service: Service, trained: str) -> None:
    """What a team calls today, moved to a model here, tried on a few, and rolled back."""
    client, name = caller.client, "ft:gpt-4o-mini-2024-07-18:acme:cities:AbC12345"
    service.sdk.aliases.set(name, trained)
    try:
        answer = caller.chat(name)
        assert (answer.choices[0].message.content, answer.model) == ("Oslo", name)
        receipt = answer.osora["receipt"]
        assert (receipt["adapter_name"], receipt["alias"]) == (trained, name)
        *_, last, counted = caller.every(
            client.chat.completions.create,
            model=name,
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        assert (last.model, counted.model, last.osora["receipt"]["alias"]) == (name, name, name)
        assert caller(client.models.retrieve, name).id == name
        assert name in [model.id for model in caller.every(client.models.list)]
        service.sdk.aliases.set(name, {trained: 50, "osora-tiny": 50})

        def answering(user: str) -> str:
            answer = caller.chat(name, user=user, max_completion_tokens=2)
            return answer.osora["receipt"]["adapter_name"] or "osora-tiny"

        seen: dict[str, str] = {}
        while set(seen.values()) != {trained, "osora-tiny"}:
            assert len(seen) < 40, "one of them gets everybody"
            seen[f"user-{len(seen)}"] = answering(f"user-{len(seen)}")
        assert {user: answering(user) for user in seen} == seen, "a user stays"
        assert service.sdk.aliases.rollback(name)["targets"] == {trained: 1}
        assert caller.chat(name).choices[0].message.content == "Oslo"
    finally:
        assert caller(client.models.delete, name).deleted
    with pytest.raises(package.NotFoundError):
        caller.chat(name)


def test_a_model_is_shared_with_another_tenant(caller: Caller, service: Service, trained: str) -> None:
    with contextlib.suppress(OsoraAPIError):  # it is there: the service is the session's
        service.sdk.tenants.create("friend")
    friend = service.sdk.keys.create(name="test", tenant="friend")
    theirs = Caller(caller.client.with_options(api_key=friend["key"]), caller.runner)
    permissions = caller.client.fine_tuning.checkpoints.permissions
    with pytest.raises(package.NotFoundError):
        theirs.chat(trained)
    (given,) = caller.every(permissions.create, trained, project_ids=[friend["tenant_id"]])
    try:
        assert [one.id for one in caller.every(permissions.list, trained)] == [given.id]
        assert theirs.chat(trained).choices[0].message.content == "Oslo"
        assert trained in [model.id for model in theirs.every(theirs.client.models.list)]
        with pytest.raises(package.PermissionDeniedError):
            theirs(theirs.client.models.delete, trained)
    finally:
        assert caller(permissions.delete, given.id, fine_tuned_model_checkpoint=trained).deleted
    with pytest.raises(package.NotFoundError):
        theirs.chat(trained)
