"""OpenAI's client sends a request again when no answer comes: nothing is made twice."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai as package
import pytest
from openai import OpenAI
from sqlalchemy import func, select, update

from registry import files, idempotency, jobs, retention, tenants
from registry.context import Registry
from registry.errors import Unavailable
from registry.models import Adapter, ApiKey, File, IdempotentRequest, Job
from registry.upload_tables import Upload, UploadPart
from tests.integration.api.openai.lost_answers import LosesAnswers
from tests.support.threads import in_parallel

ROWS = b'{"prompt": "I was charged twice.", "completion": " billing"}\n' * 12


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits half a second or more before a retry, for the server's sake."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@contextmanager
def losing(openai: OpenAI, transport: LosesAnswers) -> Iterator[OpenAI]:
    """A client that retries twice, on a way that loses answers."""
    with OpenAI(
        base_url=openai.base_url,
        api_key=openai.api_key,
        max_retries=2,
        timeout=60,
        http_client=httpx2.Client(transport=transport),
    ) as client:
        yield client


def count(registry: Registry, table: type[Any]) -> int:
    with registry.reading() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


@pytest.mark.parametrize("attempts", [1, 2])
def test_whatever_is_made_is_made_once(openai: OpenAI, registry: Registry, attempts: int) -> None:
    with losing(openai, transport := LosesAnswers(attempts=attempts)) as client:
        file = client.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
        assert [one.id for one in openai.files.list()] == [file.id]
        job = client.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id)
        assert [one.id for one in openai.fine_tuning.jobs.list()] == [job.id]
        # All routes that make something of an upload.
        upload = client.uploads.upload_file_chunked(
            file=ROWS, filename="b.jsonl", bytes=len(ROWS), mime_type="text/jsonl", purpose="fine-tune", part_size=400
        )
        assert upload.file is not None
        assert openai.files.content(upload.file.id).read() == ROWS
        assert transport.replayed == 6, "file, job, upload, two parts and its end"
    assert [count(registry, table) for table in (File, Job, Upload, UploadPart)] == [2, 1, 1, 0]


def test_a_retry_is_not_answered_with_a_file_that_was_deleted(openai: OpenAI) -> None:
    deleted = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    openai.files.delete(deleted.id)
    # The first attempt gets lost on its way.
    again = openai.files.create(
        file=("a.jsonl", ROWS), purpose="fine-tune", extra_headers={"x-stainless-retry-count": "1"}
    )
    assert again.id != deleted.id
    assert openai.files.content(again.id).read() == ROWS


def test_a_retry_waits_for_the_first_attempt(
    openai: OpenAI, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has given up, and the server has not."""
    begun, waited_for, original, look = threading.Event(), threading.Event(), files.ingest, idempotency.look

    def slow(*given: Any, **asked: Any) -> File:
        begun.set()
        assert waited_for.wait(60)
        return original(*given, **asked)

    def looked(*given: Any) -> Any:
        waited_for.set()
        return look(*given)

    monkeypatch.setattr(files, "ingest", slow)
    monkeypatch.setattr(idempotency, "look", looked)
    with losing(openai, LosesAnswers(gives_up=lambda: begun.wait(60))) as client:
        file = client.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    assert waited_for.is_set()
    assert [one.id for one in openai.files.list()] == [file.id]


def test_a_retry_of_what_failed_is_carried_out(
    openai: OpenAI, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, original = [Unavailable("not now"), RuntimeError("a bug")], jobs.submit

    def fails_first(*given: Any, **asked: Any) -> Job:
        job = original(*given, **asked)
        if failures:
            raise failures.pop()
        return job

    file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    monkeypatch.setattr(jobs, "submit", fails_first)
    with losing(openai, transport := LosesAnswers(attempts=0)) as client:
        job = client.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id)
    assert transport.replayed == 0
    assert [one.id for one in openai.fine_tuning.jobs.list()] == [job.id]


def test_equal_requests_are_told_apart(openai: OpenAI, registry: Registry) -> None:
    """Who asks four times at once wants four jobs, and each caller gets one of its own."""
    file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    made: list[str] = []
    with losing(openai, LosesAnswers()) as client:
        in_parallel(
            4,
            lambda index: made.append(
                client.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id, seed=1).id
            ),
        )
    assert sorted(made) == sorted(job.id for job in openai.fine_tuning.jobs.list())
    assert len(set(made)) == 4
    again = openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id, seed=1)
    assert again.id not in made, "a first attempt is no retry, whatever came before"


def test_retries_at_once_make_one(openai: OpenAI, registry: Registry) -> None:
    """The first attempt never came; of the retries, a proxy has sent copies."""
    file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    made: list[str] = []
    in_parallel(
        4,
        lambda index: made.append(
            openai.fine_tuning.jobs.create(
                model="osora-tiny", training_file=file.id, extra_headers={"x-stainless-retry-count": "1"}
            ).id
        ),
    )
    assert len(set(made)) == count(registry, Job) == 1


def test_another_body_another_key_and_another_day(openai: OpenAI, registry: Registry, api_key: str) -> None:
    file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    with registry.transaction() as session:
        _, other_key = tenants.create_key(session, "default", "other", ["train"])
    first = create_again(openai, file.id, retry=0)
    assert create_again(openai, file.id, retry=1) == first
    assert create_again(openai.with_options(api_key=other_key), file.id, retry=1) != first
    assert create_again(openai, file.id, retry=1, seed=7) != first
    with registry.transaction() as session:
        session.execute(
            update(IdempotentRequest).values(seen_at=IdempotentRequest.seen_at - idempotency.RETRY_DAYS * 86_400)
        )
    assert create_again(openai, file.id, retry=1) != first


def create_again(openai: OpenAI, file_id: str, *, retry: int, seed: int = 1) -> str:
    headers = {"x-stainless-retry-count": str(retry)}
    created = openai.fine_tuning.jobs.create(
        model="osora-tiny", training_file=file_id, seed=seed, extra_headers=headers
    )
    return created.id


class TestIdempotencyKey:
    KEY = {"Idempotency-Key": "nightly-2026-11-27"}  # noqa: RUF012

    def test_it_is_honoured_for_a_day(self, openai: OpenAI, registry: Registry) -> None:
        def create(**asked: Any) -> str:
            return openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune", extra_headers=self.KEY, **asked).id

        first = create()
        assert create() == first
        with registry.transaction() as session:
            session.execute(update(IdempotentRequest).values(created_at=IdempotentRequest.created_at - 86_000))
        retention.maintain(registry)
        assert create() == first
        with registry.transaction() as session:
            session.execute(update(IdempotentRequest).values(created_at=IdempotentRequest.created_at - 500))
        assert create() != first

    def test_it_is_of_one_request(self, openai: OpenAI, registry: Registry) -> None:
        file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune", extra_headers=self.KEY)
        other_requests: list[Callable[[], object]] = [
            lambda: openai.files.create(file=("a.jsonl", ROWS * 2), purpose="fine-tune", extra_headers=self.KEY),
            lambda: openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id, extra_headers=self.KEY),
        ]
        for send in other_requests:
            with pytest.raises(package.ConflictError) as caught:
                send()
            assert caught.value.code == "idempotency_key_reused"
            assert caught.value.response.headers["x-should-retry"] == "false"
        assert (count(registry, File), count(registry, Job)) == (1, 0)

    def test_many_at_once_make_one(self, openai: OpenAI, registry: Registry) -> None:
        file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
        made: list[str] = []
        in_parallel(
            5,
            lambda index: made.append(
                openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id, extra_headers=self.KEY).id
            ),
        )
        assert len(made) == 5
        assert len(set(made)) == count(registry, Job) == 1

    def test_a_request_that_was_refused_leaves_it_free(self, openai: OpenAI, registry: Registry) -> None:
        with pytest.raises(package.BadRequestError):
            openai.files.create(file=("a.jsonl", b"{]\n"), purpose="fine-tune", extra_headers=self.KEY)
        with pytest.raises(package.NotFoundError):
            openai.fine_tuning.jobs.create(model="osora-tiny", training_file="file-1", extra_headers=self.KEY)
        assert openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune", extra_headers=self.KEY).id
        with pytest.raises(package.BadRequestError):
            openai.files.create(
                file=("a.jsonl", ROWS), purpose="fine-tune", extra_headers={"Idempotency-Key": "x" * 256}
            )

    def test_an_alias_is_moved_once(self, openai: OpenAI, adapter: Adapter) -> None:
        url = str(openai.base_url).replace("/v1/", "/aliases")

        def send(path: str, key: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, int]]:
            headers = {"Idempotency-Key": key}
            alias = openai.post(url + path, body=body, cast_to=httpx2.Response, options={"headers": headers}).json()
            return alias["version"], alias["targets"]

        base, trained = {"osora-tiny": 1}, {adapter.name: 1}
        for _ in range(2):
            assert send("", "first", {"name": "triage", "target": "osora-tiny"}) == (1, base)
        for _ in range(2):
            assert send("", "second", {"name": "triage", "target": adapter.name}) == (2, trained)
        assert send("", "first", {"name": "triage", "target": "osora-tiny"}) == (1, base), "its answer of then"
        for _ in range(2):
            assert send("/triage/rollback", "third") == (3, base), "another would take the first one back"
        assert openai.get(f"{url}/triage", cast_to=httpx2.Response).json()["version"] == 3

    def test_a_secret_is_not_kept(self, openai: OpenAI, registry: Registry) -> None:
        def create() -> Any:
            url = str(openai.base_url).replace("/v1/", "/keys")
            return openai.post(url, body={"name": "k"}, cast_to=httpx2.Response, options={"headers": self.KEY})

        secret = create().json()["key"]
        before = count(registry, ApiKey)
        with pytest.raises(package.ConflictError) as caught:
            create()
        assert caught.value.code == "answer_not_kept"
        assert count(registry, ApiKey) == before
        with registry.reading() as session:
            assert [row.answer for row in session.scalars(select(IdempotentRequest))] == [None]
        assert secret.startswith("osk-")


def test_one_that_was_taken_over_changes_nothing(
    openai: OpenAI, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process stood still for longer than its lease, and a retry was faster."""
    file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    begun, overtaken, original = threading.Event(), threading.Event(), jobs.submit
    first = [True]

    def slow_first(*given: Any, **asked: Any) -> Job:
        if first:
            first.clear()
            begun.set()
            assert overtaken.wait(60)
        return original(*given, **asked)

    def lose_lease() -> None:
        assert begun.wait(60)
        with registry.transaction() as session:
            session.execute(update(IdempotentRequest).values(lease_expires_at=0))

    monkeypatch.setattr(jobs, "submit", slow_first)
    monkeypatch.setattr(idempotency, "renew", lambda *given: None)
    with losing(openai, transport := LosesAnswers(gives_up=lose_lease)) as client:
        job = client.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id)
        overtaken.set()
        for thread in transport.threads:
            thread.join()
        assert transport.late == [503]
    assert [one.id for one in openai.fine_tuning.jobs.list()] == [job.id]


def test_known_requests_are_tidied_away(openai: OpenAI, registry: Registry) -> None:
    for headers in ({}, TestIdempotencyKey.KEY):
        openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune", extra_headers=headers)
    for ages, left in (((1000, 1000), 2), ((2000, 2000), 1), ((90_000, 1000), 1), ((90_000, 2000), 0)):
        with registry.transaction() as session:
            since_creation, since_seen = ages
            session.execute(
                update(IdempotentRequest).values(
                    created_at=idempotency.now() - since_creation, seen_at=idempotency.now() - since_seen
                )
            )
        retention.maintain(registry)
        assert count(registry, IdempotentRequest) == left
