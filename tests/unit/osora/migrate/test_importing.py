import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from osora.errors import OpenAIError, OsoraAPIError
from osora.migrate.importing import Importer, Outcome
from osora.migrate.openai_api import OpenAIClient
from tests.support.fake_openai import Failure, FakeOpenAI


class Here:
    """A service in memory, with as much of the SDK as an import asks for. Jobs end when a test says so."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.means: dict[str, str] = {}
        self.refuses: OsoraAPIError | None = None
        self.keys: set[str] = set()
        self.just_before_a_job: Callable[[], object] = lambda: None
        self.files = SimpleNamespace(upload=self._upload, list=self._files)
        self.jobs = SimpleNamespace(list=self._jobs, create=self._create, get=lambda job_id: self._job(job_id))
        self.aliases = SimpleNamespace(get=self._alias, set=self._set)

    def end(self, status: str, **fields: Any) -> None:
        for job in self.made:
            if job["status"] == "queued":
                job.update(status=status, fine_tuned_model=f"ft:tiny:default::{job['id']}", **fields)

    def _upload(self, path: Path) -> Any:
        self._maybe_refuse()
        content = path.read_bytes()
        self.uploads[f"file-{len(self.uploads)}"] = content
        return {"id": f"file-{len(self.uploads) - 1}"}

    def _files(self, purpose: str) -> list[Any]:
        assert purpose == "fine-tune"
        return [
            {"id": file_id, "purpose": purpose, "osora": {"sha256": hashlib.sha256(content).hexdigest()}}
            for file_id, content in self.uploads.items()
        ]

    def _jobs(self, metadata: dict[str, str]) -> list[Any]:
        return [job for job in reversed(self.made) if metadata.items() <= job["metadata"].items()]

    def _create(self, model: str, training_file: str, idempotency_key: str, **fields: Any) -> Any:
        self.just_before_a_job()
        self._maybe_refuse()
        if idempotency_key in self.keys:
            raise OsoraAPIError(409, "it came with another request", code="idempotency_key_reused")
        self.keys.add(idempotency_key)
        job = {"id": f"ftjob-here-{len(self.made)}", "status": "queued", "model": model, "training_file": training_file}
        self.made.append(job | fields)
        return self.made[-1]

    def _job(self, job_id: str) -> Any:
        return next(job for job in self.made if job["id"] == job_id)

    def _alias(self, name: str) -> Any:
        if name not in self.means:
            raise OsoraAPIError(404, "no such alias")
        return {"targets": {self.means[name]: 1}}

    def _set(self, name: str, target: str, expected_version: int) -> None:
        assert expected_version == 0, "nobody's alias is moved"
        self._maybe_refuse()
        self.means[name] = target

    def _maybe_refuse(self) -> None:
        if self.refuses:
            raise self.refuses


@pytest.fixture
def here() -> Here:
    return Here()


def importer(here: Here, there: FakeOpenAI, client: OpenAIClient, base: str = "tiny") -> Importer:
    service: Any = here
    return Importer(client, service, there.jobs, base)


def bring(here: Here, there: FakeOpenAI, client: OpenAIClient) -> list[Outcome]:
    """A run of its own."""
    run = importer(here, there, client)
    return [run.bring(job) for job in reversed(there.jobs)]


@pytest.fixture(autouse=True)
def _files(there: FakeOpenAI) -> None:
    there.files = {"file-train": ("a.jsonl", b"rows"), "file-copy": ("b.jsonl", b"rows"), "file-valid": ("c", b"other")}


def test_equal_files_are_one_here(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    here.uploads = {"file-old": b"something", "file-older": b"other"}
    there.add_job(1, validation_file="file-valid")
    there.add_job(2, training_file="file-copy")
    bring(here, there, client)
    assert [job["training_file"] for job in here.made] == ["file-2", "file-2"]
    assert here.made[0]["validation_file"] == "file-older"
    assert sorted(here.uploads.values()) == [b"other", b"rows", b"something"]


def test_a_name_is_set_when_its_adapter_is_there(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    name = there.add_job(1)["fine_tuned_model"]
    (going,) = bring(here, there, client)
    assert (going.status, going.alias, going.is_going, going.is_wrong) == ("queued", None, True, False)
    here.end("succeeded")
    assert importer(here, there, client).look(there.jobs[0]).reason == "its old name is still to be set"
    (done,) = bring(here, there, client)
    assert (done.alias, done.is_going, here.means) == ("set", False, {name: done.adapter})
    here.means[name] = "ft:tiny:default::mine"
    (kept,) = bring(here, there, client)
    assert (kept.alias, kept.is_wrong, here.means) == ("kept", False, {name: "ft:tiny:default::mine"})
    del here.means[name]
    here.refuses = OsoraAPIError(409, "a model has that name", next_action="delete it")
    (refused,) = bring(here, there, client)
    assert (refused.alias, refused.is_wrong, refused.next_action) == ("refused", True, "delete it")
    assert len(here.made) == 1


def test_a_job_that_goes_on_from_another_waits_for_it(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    first = there.add_job(1)
    there.add_job(2, model=first["fine_tuned_model"], training_file="file-valid")
    alone = importer(here, there, client).bring(there.jobs[0])
    assert (alone.status, alone.next_action) == ("left out", "import that as well: --job ftjob-1")
    _, waiting = bring(here, there, client)
    assert (waiting.status, waiting.is_going) == ("waiting", True)
    assert len(here.made) == 1
    here.end("succeeded")
    bring(here, there, client)
    assert here.made[1]["osora"] == {"from_adapter": here.made[0]["fine_tuned_model"]}


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_came_to_nothing_is_made_again_but_not_at_once(
    here: Here, there: FakeOpenAI, client: OpenAIClient, status: str
) -> None:
    there.add_job(1)
    run = importer(here, there, client)
    run.bring(there.jobs[0])
    here.end(status, error={"message": "no luck", "next_action": "try", "line": 3})
    again = run.bring(there.jobs[0])
    assert (again.status, again.reason, again.line, again.is_wrong) == (status, "no luck", 3, True)
    (later,) = bring(here, there, client)
    assert (later.status, len(here.made)) == ("queued", 2)


def test_two_imports_at_once_make_one_job(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    there.add_job(1)

    def another() -> None:
        here.just_before_a_job = lambda: None
        bring(here, there, client)

    here.just_before_a_job = another
    (late,) = bring(here, there, client)
    assert (late.status, late.job, len(here.made)) == ("queued", "ftjob-here-0", 1)


def test_a_job_that_another_import_has_only_begun_to_make(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    there.add_job(1)
    here.refuses = OsoraAPIError(409, "it came with another request", code="idempotency_key_reused")
    here.uploads = {"file-here": b"rows"}
    (late,) = bring(here, there, client)
    assert (late.status, late.reason, late.next_action) == (
        "left out",
        "another import is making it just now",
        "run this again",
    )


def test_a_job_of_another_base_is_another_job(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    there.add_job(1)
    importer(here, there, client, "large").bring(there.jobs[0])
    bring(here, there, client)
    assert [job["model"] for job in here.made] == ["large", "tiny"]


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_file_that_is_refused_leaves_its_jobs_out(
    here: Here, there: FakeOpenAI, client: OpenAIClient, status: int
) -> None:
    there.add_job(1)
    there.add_job(2)
    here.refuses = OsoraAPIError(status, "`text` is not known here", line=7, next_action="remove it")
    first, second = bring(here, there, client)
    assert first.reason == "its file file-train (a.jsonl) is refused here: line 7: `text` is not known here"
    assert (first.status, first.line, first.next_action) == ("left out", 7, "remove it")
    assert second.reason == first.reason
    assert len(there.sent("/files/file-train/content")) == 1


def test_what_is_wrong_with_the_service_or_the_key_ends_it(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    there.add_job(1)
    here.refuses = OsoraAPIError(507, "the disk is full")
    with pytest.raises(OsoraAPIError):
        bring(here, there, client)
    there.failures = [Failure("/files/", 401)]
    with pytest.raises(OpenAIError):
        bring(here, there, client)


def test_a_file_has_the_name_that_it_had(here: Here, there: FakeOpenAI, client: OpenAIClient) -> None:
    names: list[str] = []
    here.files.upload = lambda path: names.append(path.name) or {"id": "file-new"}
    for number, name in enumerate(["tickets 2.jsonl", "../../etc/passwd", "..", "", "x" * 300 + ".jsonl"]):
        there.files[f"file-{number}"] = (name, b"%d" % number)
        there.add_job(number, training_file=f"file-{number}")
    bring(here, there, client)
    assert names == ["tickets 2.jsonl", "etcpasswd", "file-2.jsonl", "file-3.jsonl", "x" * 74 + ".jsonl"]
