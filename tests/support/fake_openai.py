"""An account at OpenAI, played by a small real server: jobs, files, answers, and what goes wrong there."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.integration.api.servers import running

KEY = "sk-test-0123456789abcdefghij"


@dataclass
class Failure:
    """What the next requests to a path that begins like this get instead."""

    path: str
    status: int
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None
    message: str = "Something went wrong"


@dataclass
class Gate:
    """Tells that somebody has come so far, and lets them on when it is opened."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


@dataclass
class Asked:
    """A request that arrived. `at`: seconds of the monotonic clock."""

    method: str
    path: str
    body: Any
    at: float


def say(text: str | None, *, finish_reason: str = "stop", **fields: Any) -> dict[str, Any]:
    """A chat's choice."""
    message = {"role": "assistant", "content": text, "refusal": None, **fields}
    return {"index": 0, "finish_reason": finish_reason, "message": message}


@dataclass
class FakeOpenAI:
    """`choose` makes the choice for a chat's body, `gates` hold the bytes of files. All may change while it runs."""

    url: str = ""
    page: int = 2
    jobs: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    gates: dict[str, "Gate"] = field(default_factory=dict)
    choose: Callable[[Any], dict[str, Any]] = lambda body: say("")
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def add_job(self, number: int, **fields: Any) -> dict[str, Any]:
        """A job that has succeeded, newer than those before; its files are there under their ids."""
        job = {
            "id": f"ftjob-{number}",
            "object": "fine_tuning.job",
            "created_at": 1_700_000_000 + number,
            "finished_at": 1_700_000_900 + number,
            "status": "succeeded",
            "model": "gpt-4o-mini-2024-07-18",
            "fine_tuned_model": f"ft:gpt-4o-mini-2024-07-18:acme::{number}",
            "organization_id": "org-acme",
            "result_files": [],
            "training_file": "file-train",
            "validation_file": None,
            "hyperparameters": {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.8},
            "trained_tokens": 1000,
            "seed": 7,
            "error": None,
            "integrations": [],
            "metadata": None,
            "user_provided_suffix": None,
            **fields,
        }
        self.jobs.insert(0, job)
        return job

    def sent(self, path: str) -> list[Asked]:
        return [one for one in self.asked if one.path.startswith(path)]

    def wait_until_idle(self) -> None:
        """Until no question is being answered: one whose asker was killed is so for as long as `choose` takes."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._now == 0, 60)

    @property
    def app(self) -> Starlette:
        routes = [
            Route("/v1/fine_tuning/jobs", self._guarded(self._list_jobs)),
            Route("/v1/files/{id}", self._guarded(self._file)),
            Route("/v1/files/{id}/content", self._guarded(self._content)),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/v1/completions", self._guarded(self._complete), methods=["POST"]),
        ]
        return Starlette(routes=routes)

    def _guarded(self, answer: Callable[[Request, Any], Response]) -> Callable[[Request], Any]:
        """Notes the request, checks the key, and lets a failure that is due come first."""

        async def endpoint(request: Request) -> Response:
            body = json.loads(await request.body() or b"null")
            path = request.url.path.removeprefix("/v1")
            with self._lock:
                self.asked.append(Asked(request.method, path, body, time.monotonic()))
                failure = next((one for one in self.failures if path.startswith(one.path) and one.times), None)
                if failure:
                    failure.times -= 1
            if request.headers.get("authorization") != f"Bearer {KEY}":
                key = request.headers.get("authorization", "").removeprefix("Bearer ")
                return _error(401, f"Incorrect API key provided: {key}", "invalid_api_key")
            if failure:
                return _error(failure.status, failure.message, failure.code, failure.headers)
            return await run_in_threadpool(answer, request, body)

        return endpoint

    def _list_jobs(self, request: Request, body: Any) -> Response:
        after = request.query_params.get("after")
        start = next((place + 1 for place, job in enumerate(self.jobs) if job["id"] == after), 0)
        end = start + min(self.page, int(request.query_params.get("limit", 20)))
        return JSONResponse({"object": "list", "data": self.jobs[start:end], "has_more": end < len(self.jobs)})

    def _file(self, request: Request, body: Any) -> Response:
        file_id = request.path_params["id"]
        if file_id not in self.files:
            return _error(404, f"No such File object: {file_id}")
        name, content = self.files[file_id]
        return JSONResponse({"id": file_id, "object": "file", "filename": name, "bytes": len(content)})

    def _content(self, request: Request, body: Any) -> Response:
        file_id = request.path_params["id"]
        if file_id not in self.files:
            return _error(404, f"No such File object: {file_id}")
        if gate := self.gates.get(file_id):
            gate.reached.set()
            gate.opened.wait(60)
        return Response(self.files[file_id][1], media_type="application/octet-stream")

    def _chat(self, request: Request, body: Any) -> Response:
        return self._answer(body, lambda: {"choices": [self.choose(body)]})

    def _complete(self, request: Request, body: Any) -> Response:
        def choices() -> dict[str, Any]:
            choice = self.choose(body)
            text = choice["message"]["content"]
            return {"choices": [{"index": 0, "text": text, "finish_reason": choice["finish_reason"]}]}

        return self._answer(body, choices)

    def _answer(self, body: Any, choices: Callable[[], dict[str, Any]]) -> Response:
        if self.models and body["model"] not in self.models:
            return _error(404, f"The model `{body['model']}` does not exist", "model_not_found")
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
            return JSONResponse({"id": "chatcmpl-1", "model": body["model"], "usage": usage, **choices()})
        finally:
            with self._lock:
                self._now -= 1
                self._lock.notify_all()


def _error(status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


@contextmanager
def playing() -> Iterator[FakeOpenAI]:
    """A fresh account, on a port of this machine."""
    fake = FakeOpenAI()
    with running(uvicorn.Server(uvicorn.Config(fake.app, port=0, log_level="critical", loop="asyncio"))) as url:
        fake.url = f"{url}/v1"
        yield fake
