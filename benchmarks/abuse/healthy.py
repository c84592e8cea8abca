"""The healthy tenant: it looks at its jobs, streams an answer, and starts small jobs, all the time."""

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.abuse.attacker import ROW, rows_of

_LOOK_SECONDS = 0.1
_TOKENS = 900
_ROWS = 16
_ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Seen:
    """What the tenant saw in a window of time. Seconds throughout."""

    seconds: float = 0.0
    gets: list[float] = field(default_factory=list)
    tokens: int = 0
    pause: float = 0.0
    """The longest time without a token, of one that was waited for."""
    starts: list[float] = field(default_factory=list)
    """From a job's POST to its start, as far as it was waited for."""
    failures: list[str] = field(default_factory=list)
    """Answers of 500 and above, and connections that broke."""
    refusals: list[str] = field(default_factory=list)
    """Other answers that were no success."""

    def join(self, other: "Seen") -> None:
        """Takes in another window."""
        self.seconds += other.seconds
        self.gets += other.gets
        self.tokens += other.tokens
        self.pause = max(self.pause, other.pause)
        self.starts += other.starts
        self.failures += other.failures
        self.refusals += other.refusals


class Healthy:
    """A tenant at work on three threads, each with a connection of its own. `seen()` ends a window and begins another.

    What is still waited for when a window ends counts in it as long as it has lasted: a request without an answer is
    not one that nobody measured.
    """

    def __init__(self, url: str, key: str, base: str) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"}
        self._base = base
        self._lock = threading.Lock()
        self._seen = Seen()
        self._began = time.perf_counter()
        self._stopping = threading.Event()
        self._getting_since: float | None = None
        self._token_at: float | None = None
        self._posted_at: float | None = None
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._look, self._stream, self._train)]

    def __enter__(self) -> "Healthy":
        with self._client() as client:
            response = client.post(
                "/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", rows_of(ROW, _ROWS))}
            )
            self._file_id = str(response.raise_for_status().json()["id"])
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def seen(self) -> Seen:
        """What was seen since the last call."""
        with self._lock:
            now = time.perf_counter()
            seen, self._seen = self._seen, Seen()
            seen.seconds, self._began = now - self._began, now
            if self._getting_since is not None and now - self._getting_since > _LOOK_SECONDS:
                seen.gets.append(now - self._getting_since)
            if self._token_at is not None:
                seen.pause = max(seen.pause, now - self._token_at)
            if self._posted_at is not None:
                seen.starts.append(now - self._posted_at)
            return seen

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, headers=self._headers, timeout=120, trust_env=False)

    def _judge(self, what: str, response: httpx.Response) -> bool:
        if response.is_success:
            return True
        with self._lock:
            (self._seen.failures if response.status_code >= 500 else self._seen.refusals).append(
                f"{what}: {response.status_code} {response.text[:300]}"
            )
        time.sleep(0.2)
        return False

    def _broke(self, what: str, error: Exception) -> None:
        with self._lock:
            self._seen.failures.append(f"{what}: {type(error).__name__}: {error}")
        time.sleep(0.2)

    def _look(self) -> None:
        with self._client() as client:
            while not self._stopping.wait(_LOOK_SECONDS):
                began = time.perf_counter()
                self._getting_since = began
                try:
                    response = client.get("/jobs")
                except httpx.HTTPError as error:
                    self._broke("GET /jobs", error)
                    continue
                finally:
                    self._getting_since = None
                if self._judge("GET /jobs", response):
                    with self._lock:
                        # What was waited for before this window began is the last one's.
                        self._seen.gets.append(time.perf_counter() - max(began, self._began))

    def _stream(self) -> None:
        seed = 0
        with self._client() as client:
            while not self._stopping.is_set():
                seed += 1
                body = {"prompt": "Once", "max_tokens": _TOKENS, "temperature": 1, "seed": seed, "stream": True}
                try:
                    self._token_at = self._token_at or time.perf_counter()
                    with client.stream("POST", "/generate", json=body) as response:
                        if not response.is_success:
                            response.read()
                        if self._judge("POST /generate", response):
                            self._follow(response)
                except httpx.HTTPError as error:
                    self._broke("POST /generate", error)
        self._token_at = None

    def _follow(self, response: httpx.Response) -> None:
        for line in response.iter_lines():
            if line == "event: error":
                self._broke("POST /generate", RuntimeError("an error within the stream"))
            if line == "event: token":
                self._note_token()
            if self._stopping.is_set():
                return

    def _note_token(self) -> None:
        with self._lock:
            now = time.perf_counter()
            self._seen.tokens += 1
            if self._token_at is not None:
                self._seen.pause = max(self._seen.pause, now - max(self._token_at, self._began))
            self._token_at = now

    def _train(self) -> None:
        with self._client() as client:
            while not self._stopping.is_set():
                try:
                    self._train_one(client)
                except httpx.HTTPError as error:
                    self._posted_at = None
                    self._broke("POST /jobs", error)

    def _train_one(self, client: httpx.Client) -> None:
        self._posted_at = posted = time.perf_counter()
        body: dict[str, Any] = {
            "model": self._base,
            "training_file": self._file_id,
            "hyperparameters": {"n_epochs": 1, "batch_size": 4},
        }
        response = client.post("/jobs", json=body)
        if not self._judge("POST /jobs", response):
            self._posted_at = None
            return
        job = response.json()
        while job["status"] not in _ENDED and not self._stopping.wait(0.2):
            response = client.get(f"/jobs/{job['id']}")
            if self._judge("GET /jobs/…", response):
                job = response.json()
            if job["status"] not in ("queued", "validating_files") and self._posted_at is not None:
                with self._lock:
                    self._seen.starts.append(time.perf_counter() - posted)
                    self._posted_at = None
        if job["status"] == "failed":
            self._broke("its job", RuntimeError(json.dumps(job["error"])))
        self._stopping.wait(1)
