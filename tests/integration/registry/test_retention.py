"""What expires and what is swept away, and above all what is not."""

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event, select, update

from registry import adapters, files, jobs, retention, uploads
from registry.blobs import DatabaseStore
from registry.context import Registry
from registry.errors import NotFound
from registry.jobs import Attempt, NewResultFile
from registry.models import Adapter, Blob, Checkpoint, File, Job, JobEvent
from registry.object_keys import StoredObject
from registry.tenants import Principal
from tests.support.jobs import claim, messages, new_adapter, record_checkpoint, submit, upload
from tests.support.threads import in_parallel

DAY = 86_400


def with_retention(registry: Registry, **days: float | None) -> Registry:
    return replace(registry, settings=registry.settings.model_copy(update=days))


def put(registry: Registry, key: str, *, hours_ago: float = 0) -> str:
    """Stores an object that looks that old."""
    registry.store.put(key, b"x")
    if isinstance(registry.store, DatabaseStore):
        with registry.transaction() as session:
            session.execute(update(Blob).values(created_at=time.time() - hours_ago * 3600).where(Blob.key == key))
    else:
        moment = time.time() - hours_ago * 3600
        os.utime(registry.settings.data_dir / "objects" / key, (moment, moment))
    return key


def stored(registry: Registry) -> set[str]:
    return {found.key for found in registry.store.list("")}


def age(registry: Registry, row: Any, column: str, days: float) -> None:
    """Makes a row look that old."""
    with registry.transaction() as session:
        session.execute(update(type(row)).where(type(row).id == row.id).values({column: time.time() - days * DAY}))


def upload_all(registry: Registry, attempt: Attempt, *, hours_ago: float = 0) -> set[str]:
    """What an attempt stores before it writes a row: a checkpoint and its adapter, the last one, its result file."""
    state = checkpoint_key(attempt)
    callable = state.replace(".safetensors", ".zip")
    keys = (state, callable, new_adapter(attempt).object_key, result_file(attempt).object_key)
    return {put(registry, key, hours_ago=hours_ago) for key in keys}


def checkpoint_key(attempt: Attempt) -> str:
    return f"checkpoints/{attempt.job_id}/{attempt.number}/1.safetensors"


def result_file(attempt: Attempt) -> NewResultFile:
    key = f"results/{attempt.job_id}/{attempt.number}/step_metrics.csv"
    return NewResultFile("step_metrics.csv", key, "d" * 64, 1)


def write_all(registry: Registry, attempt: Attempt) -> Adapter:
    """The rows of that; the job ends."""
    with registry.transaction() as session:
        record_checkpoint(session, attempt, 1)
        return jobs.complete(
            session,
            attempt,
            step=1,
            trained_tokens=1,
            adapter=new_adapter(attempt),
            metrics={},
            result_files=[result_file(attempt)],
        )


def part(registry: Registry, principal: Principal) -> str:
    """The key of a part of a pending upload."""
    with registry.transaction() as session:
        begun = uploads.create(
            session, principal, filename="a", purpose="fine-tune", bytes=9, file_expires_after=None, limit=9
        )
    stream = io.BytesIO(b"x" * 9)
    return uploads.add_part(registry, principal, begun.upload.id, stream, lambda session, part: None).object_key


def trained(registry: Registry, principal: Principal) -> Adapter:
    attempt = claim(registry, submit(registry, principal))
    upload_all(registry, attempt)
    return write_all(registry, attempt)


def cancel(registry: Registry, principal: Principal, job: Job) -> None:
    with registry.transaction() as session:
        jobs.cancel(session, principal, job.id)


class Interrupted:
    """A store that runs `action` at the moment when a listing has been read."""

    def __init__(self, registry: Registry, action: Callable[[], object]) -> None:
        self._store = registry.store
        self._action = action

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = list(self._store.list(prefix))
        self._action()
        return iter(found)


class TestFiles:
    def test_old_ones_go_row_first_and_then_the_object(self, registry: Registry, principal: Principal) -> None:
        old, young = upload(registry, principal), upload(registry, principal)
        age(registry, old, "created_at", 31)
        limited = with_retention(registry, file_retention_days=30)
        assert retention.expire(registry) == 0
        assert retention.expire(limited) == 1
        assert stored(registry) == {young.object_key}
        with registry.reading() as session, pytest.raises(NotFound):
            files.get(session, principal, old.id)
        assert retention.expire(limited) == 0

    @pytest.mark.parametrize("field", ["training_file", "validation_file"])
    @pytest.mark.parametrize("status", ["queued", "running", "paused"])
    def test_one_that_a_live_job_uses_stays_however_old(
        self, registry: Registry, principal: Principal, status: str, field: str
    ) -> None:
        file = upload(registry, principal)
        job = submit(registry, principal, **{field: file.id})
        submit(registry, principal)  # another live job, without a validation file
        if status == "running":
            claim(registry, job)
        elif status == "paused":
            with registry.transaction() as session:
                jobs.pause(session, principal, job.id)
        age(registry, file, "created_at", 31)
        limited = with_retention(registry, file_retention_days=30)
        assert retention.expire(limited) == 0
        assert registry.store.size(file.object_key) == file.bytes
        with registry.transaction() as session:
            session.execute(update(Job).where(Job.id == job.id).values(status="failed"))
        assert retention.expire(limited) == 1

    def test_one_that_gets_a_job_after_it_was_chosen_stays(self, registry: Registry, principal: Principal) -> None:
        file = upload(registry, principal)
        age(registry, file, "created_at", 31)
        late = beaten(registry, lambda: submit(registry, principal, training_file=file.id))
        assert retention.expire(with_retention(late, file_retention_days=30)) == 0
        assert registry.store.size(file.object_key) == file.bytes

    def test_submitting_and_expiring_at_once_leaves_no_job_without_its_file(
        self, registry: Registry, principal: Principal
    ) -> None:
        made = [upload(registry, principal) for _ in range(12)]
        for file in made:
            age(registry, file, "created_at", 31)
        limited = with_retention(registry, file_retention_days=30)
        submitted: list[Job] = []

        def work(index: int) -> None:
            if index == 0:
                retention.expire(limited)
            else:
                for file in made[index - 1 :: 3]:
                    try:
                        submitted.append(submit(registry, principal, training_file=file.id))
                    except NotFound:
                        continue

        in_parallel(4, work)
        with registry.reading() as session:
            for job in submitted:
                assert registry.store.size(files.get(session, principal, job.training_file_id).object_key)
        assert len(stored(registry)) == len(submitted)


class TestExpiredFiles:
    def test_one_goes_without_any_setting(self, registry: Registry, principal: Principal) -> None:
        past, coming, lasting = (upload(registry, principal) for _ in range(3))
        age(registry, past, "expires_at", 0.001)
        age(registry, coming, "expires_at", -1)
        assert retention.expire(registry) == 1
        assert stored(registry) == {coming.object_key, lasting.object_key}

    @pytest.mark.parametrize("field", ["training_file", "validation_file"])
    def test_one_stays_for_the_job_that_needs_it_and_for_nobody_else(
        self, registry: Registry, principal: Principal, field: str
    ) -> None:
        file = upload(registry, principal)
        job = submit(registry, principal, **{field: file.id})
        age(registry, file, "expires_at", 1)
        with pytest.raises(NotFound, match=file.id):
            submit(registry, principal, **{field: file.id})
        assert retention.expire(registry) == 0
        inputs = claim(registry, job)
        read = inputs.training_file if field == "training_file" else inputs.validation_file
        assert read is not None
        assert registry.store.get(read.object_key)
        with registry.transaction() as session:
            session.execute(update(Job).where(Job.id == job.id).values(status="succeeded"))
        assert retention.expire(registry) == 1
        assert registry.store.size(file.object_key) is None


class Beaten:
    """Sessions of which the first comes too late: `action` has been there before."""

    def __init__(self, registry: Registry, action: Callable[[], object]) -> None:
        self._registry = registry
        self._actions = [action]

    def begin(self) -> Any:
        while self._actions:
            self._actions.pop()()
        return self._registry.sessions.begin()


def beaten(registry: Registry, action: Callable[[], object]) -> Registry:
    """Between what it reads and what it writes first, `action` happens."""
    return replace(registry, sessions=Beaten(registry, action))  # type: ignore[arg-type]


class TestAdapters:
    def test_old_ones_go_as_if_deleted(self, registry: Registry, principal: Principal) -> None:
        old, young = (trained(registry, principal) for _ in range(2))
        age(registry, old, "created_at", 91)
        limited = with_retention(registry, adapter_retention_days=90)
        assert retention.expire(registry) == 0
        assert retention.expire(limited) == 1
        assert registry.store.size(old.object_key) is None
        assert registry.store.size(young.object_key) is not None
        with registry.reading() as session:
            gone, kept = (jobs.get(session, principal, adapter.job_id) for adapter in (old, young))
            with pytest.raises(NotFound):
                adapters.get(session, principal, old.name)
        assert (gone.status, gone.adapter_id, gone.fine_tuned_model) == ("succeeded", None, old.name)
        assert kept.adapter_id == young.id
        assert retention.expire(limited) == 0

    def test_one_that_is_deleted_meanwhile_is_gone_once(self, registry: Registry, principal: Principal) -> None:
        adapter = trained(registry, principal)
        age(registry, adapter, "created_at", 91)
        late = beaten(registry, lambda: adapters.delete(registry, principal, adapter.id))
        assert retention.expire(with_retention(late, adapter_retention_days=90)) == 0


class TestOfJobs:
    def test_checkpoints_of_ended_jobs_go_a_week_after_the_end(self, registry: Registry, principal: Principal) -> None:
        keys = {}
        for status in ("queued", "running", "paused", "cancelled", "cancelled lately"):
            job = submit(registry, principal)
            attempt = claim(registry, job)
            keys[status] = put(registry, checkpoint_key(attempt))
            with registry.transaction() as session:
                record_checkpoint(session, attempt, 1)
                ended = {"status": "cancelled", "finished_at": time.time() - (6.9 if " " in status else 7.1) * DAY}
                values = ended if status.startswith("cancelled") else {"status": status}
                session.execute(update(Job).where(Job.id == job.id).values(values))
                long_ago = time.time() - 1000 * DAY
                session.execute(update(Checkpoint).where(Checkpoint.job_id == job.id).values(created_at=long_ago))
        assert retention.expire(registry) == 1
        assert stored(registry) & set(keys.values()) == set(keys.values()) - {keys["cancelled"]}
        with registry.reading() as session:
            assert set(session.scalars(select(Checkpoint.object_key))) == set(keys.values()) - {keys["cancelled"]}
        assert retention.expire(with_retention(registry, checkpoint_retention_days=None)) == 0
        assert retention.expire(with_retention(registry, checkpoint_retention_days=6)) == 1

    def test_events_go_with_all_of_their_job_or_not_at_all(
        self, registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "_BATCH", 2)
        live, ended, lately = (submit(registry, principal) for _ in range(3))
        for job in (ended, lately):
            cancel(registry, principal, job)
        with registry.transaction() as session:
            session.execute(update(JobEvent).values(created_at=time.time() - 100 * DAY))
        for job, days in ((ended, 31), (lately, 29)):
            age(registry, job, "finished_at", days)
        assert retention.expire(registry) == 0
        assert retention.expire(with_retention(registry, event_retention_days=30)) == 3
        assert [len(messages(registry, principal, job)) for job in (live, ended, lately)] == [2, 0, 3]


def test_what_is_over_its_age_goes_in_batches(
    registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction deletes more than a batch, so that on SQLite others get their turn to write."""
    monkeypatch.setattr(retention, "_BATCH", 2)
    for _ in range(5):
        age(registry, upload(registry, principal), "created_at", 31)
    deleted: list[int] = []

    @event.listens_for(registry.engine, "after_cursor_execute")
    def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM files"):
            deleted.append(statement.count("?") or statement.count("%("))

    assert retention.expire(with_retention(registry, file_retention_days=30)) == 5
    assert [number for number in deleted if number] == [2, 2, 1]
    assert stored(registry) == set()


def test_a_crash_between_row_and_object_leaves_work_for_the_sweep(registry: Registry, principal: Principal) -> None:
    file = upload(registry, principal)
    age(registry, file, "created_at", 31)

    class Crash(Exception):
        pass

    class Crashing(Interrupted):
        def delete(self, key: str) -> None:
            raise Crash

    crashing = replace(registry, store=Crashing(registry, lambda: None))
    with pytest.raises(Crash):
        retention.expire(with_retention(crashing, file_retention_days=30))
    with registry.reading() as session:
        assert session.scalars(select(File.id)).all() == []
    assert stored(registry) == {file.object_key}
    put(registry, file.object_key, hours_ago=25)
    assert retention.delete_orphans(registry) == 1
    assert stored(registry) == set()


class TestSweep:
    @pytest.fixture(params=["files", "db:"])
    def registry(self, request: pytest.FixtureRequest, registry: Registry) -> Iterator[Registry]:
        """With objects in files, and in the database."""
        if request.param == "files":
            yield registry
            return
        with Registry.open(registry.settings.model_copy(update={"object_store": "db:"})) as other:
            yield other

    def test_only_old_objects_without_a_row_go(self, registry: Registry, principal: Principal) -> None:
        tenant = principal.tenant_id
        file = upload(registry, principal)
        ended = claim(registry, submit(registry, principal, training_file=file.id))
        live, queued = (submit(registry, principal, training_file=file.id) for _ in range(2))
        named = [
            put(registry, file.object_key, hours_ago=1000),
            put(registry, part(registry, principal), hours_ago=1000),
            *upload_all(registry, ended, hours_ago=1000),
        ]
        adapter = write_all(registry, ended)
        claim(registry, live)
        of_live = [
            put(registry, f"{folder}/{job.id}/1/object", hours_ago=1000)
            for folder in ("checkpoints", "adapters", "results")
            for job in (live, queued)
        ]
        elsewhere = [put(registry, key, hours_ago=1000) for key in ("bases/tiny/q-r8.safetensors", "mine", "filesx/a")]
        young = [
            put(registry, key, hours_ago=23)
            for key in (f"files/{tenant}/file-b.jsonl", f"adapters/{ended.job_id}/2/adapter.zip")
        ]
        forgotten = [
            put(registry, key, hours_ago=25)
            for key in (
                f"files/{tenant}/file-a.jsonl",
                "uploads/upload_1/part_1",
                f"adapters/{ended.job_id}/3/adapter.zip",
                f"checkpoints/{ended.job_id}/1/3",
                f"results/{ended.job_id}/2/step_metrics.csv",
                "checkpoints/ftjob-unknown/1/3",
                "checkpoints/stray",
            )
        ]
        assert stored(registry) == {*named, *of_live, *elsewhere, *young, *forgotten}
        assert retention.delete_orphans(registry) == len(forgotten)
        assert stored(registry) == {*named, *of_live, *elsewhere, *young}
        assert retention.delete_orphans(registry) == 0
        cancel(registry, principal, queued)
        assert retention.delete_orphans(registry) == 3
        assert registry.store.get(adapter.object_key) == b"x"

    def test_several_at_once(self, registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "_BATCH", 2)
        kept = upload(registry, principal)
        put(registry, kept.object_key, hours_ago=1000)
        for number in range(7):
            put(registry, f"files/{principal.tenant_id}/{number}", hours_ago=25)
            age(registry, upload(registry, principal), "created_at", 31)
        expiring = with_retention(registry, file_retention_days=30)
        in_parallel(4, lambda index: retention.maintain(expiring))
        assert stored(registry) == {kept.object_key}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_half_an_upload_goes_too(registry: Registry) -> None:
    """A killed process leaves one beside its place on the disk, where no listing shows it."""
    for name, hours_ago in (("old", 25), ("young", 23)):
        moment = time.time() - hours_ago * 3600
        path = registry.settings.data_dir / "objects" / "files" / f"{name}.jsonl#1"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half of it")
        os.utime(path, (moment, moment))
    assert retention.delete_orphans(registry) == 1
    assert [path.name for path in path.parent.iterdir()] == ["young.jsonl#1"]


def test_a_row_that_comes_after_the_listing_keeps_its_object(registry: Registry, principal: Principal) -> None:
    """Such as one of a worker that was stopped for a day between its upload and its write."""
    key = put(registry, f"files/{principal.tenant_id}/late.jsonl", hours_ago=25)

    def commit() -> None:
        with registry.transaction() as session:
            if session.scalars(select(File)).one_or_none() is None:
                row = File(
                    id="file-late",
                    tenant_id=principal.tenant_id,
                    filename="late.jsonl",
                    purpose="fine-tune",
                    object_key=key,
                    bytes=1,
                    sha256="a" * 64,
                )
                session.add(row)

    assert retention.delete_orphans(replace(registry, store=Interrupted(registry, commit))) == 0
    assert stored(registry) == {key}


def test_a_job_that_ends_at_any_moment_of_a_sweep_keeps_its_objects(registry: Registry, principal: Principal) -> None:
    """Its uploads are older than the grace; their rows come before the sweep's first query, its second, and so on."""
    training_file = upload(registry, principal).id
    for query in count(1):
        attempt = claim(registry, submit(registry, principal, training_file=training_file))
        keys = upload_all(registry, attempt, hours_ago=25)
        put(registry, f"checkpoints/forgotten/{query}", hours_ago=25)
        with before_query(registry, query, lambda attempt=attempt: write_all(registry, attempt)) as happened:
            assert retention.delete_orphans(registry) == 1
        assert keys <= stored(registry), f"lost something when its row came before query {query}"
        if not happened:
            break
    assert query > 10


@contextmanager
def before_query(registry: Registry, number: int, action: Callable[[], object]) -> Iterator[list[int]]:
    """Runs `action` right before the registry's query of that number; what it yields is empty until then."""
    happened: list[int] = []
    queries = count(1)

    def interrupt(*_: Any) -> None:
        if not happened and next(queries) == number:
            happened.append(number)
            action()

    event.listen(registry.engine, "before_cursor_execute", interrupt)
    yield happened
    event.remove(registry.engine, "before_cursor_execute", interrupt)
