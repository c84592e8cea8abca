"""What a tenant may ask of its jobs, and what it sees of them."""

import pytest
from sqlalchemy import select, update

from registry import files, jobs
from registry.context import Registry
from registry.db import now_seconds
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.jobs import JobRequest
from registry.models import Job
from registry.settings import Settings
from registry.tenants import Principal
from tests.support.jobs import claim, messages, new_adapter, read, record_checkpoint, submit, upload


def ask(registry: Registry, principal: Principal, wish: str, job: Job) -> Job:
    with registry.transaction() as session:
        answer: Job = getattr(jobs, wish)(session, principal, job.id)
        return answer


def test_submit_queues_a_job(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal, metadata={"team": "a"})
    assert (job.status, job.step, job.trained_tokens, job.error) == ("queued", 0, None, None)
    assert 0 <= job.seed < 2**31
    assert messages(registry, principal, job) == [
        f"Created fine-tuning job: {job.id}",
        "Files validated, moving job to queued state",
    ]


@pytest.mark.parametrize(("of_basis", "asked", "rank"), [(64, {}, 64), (64, {"rank": 8}, 8), (256, {}, 128)])
def test_a_job_has_no_higher_rank_than_the_basis(
    settings: Settings, registry: Registry, principal: Principal, of_basis: int, asked: dict[str, int], rank: int
) -> None:
    """By default it has 128, or 64 where the basis has no more; one that names its own keeps it."""
    request = JobRequest(base="osora-tiny", training_file=upload(registry, principal).id, osora=asked)
    with registry.transaction() as session:
        job = jobs.submit(session, principal, request, settings.model_copy(update={"basis_rank": of_basis}))
        assert job.points is not None
        assert [point["rank"] for point in job.points] == [rank]
        assert job.osora == asked


@pytest.mark.parametrize(
    ("request_", "param", "code", "kind"),
    [
        ({"base": "gpt-x"}, "model", "model_not_found", InvalidRequest),
        ({"training_file": "file-x"}, "training_file", "file_not_found", NotFound),
        ({"validation_file": "file-x"}, "validation_file", "file_not_found", NotFound),
        ({"training_file": "file-\0"}, None, "unstorable_text", InvalidRequest),
    ],
)
def test_submit_names_what_is_wrong(
    registry: Registry,
    principal: Principal,
    request_: dict[str, str],
    param: str,
    code: str,
    kind: type[InvalidRequest | NotFound],
) -> None:
    with pytest.raises(kind) as caught:
        submit(registry, principal, **request_)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.next_action


def test_submit_refuses_result_files(registry: Registry, principal: Principal) -> None:
    attempt = claim(registry, submit(registry, principal))
    result = jobs.NewResultFile(filename="m.csv", object_key="r/m.csv", sha256="d" * 64, bytes=7)
    with registry.transaction() as session:
        jobs.complete(
            session,
            attempt,
            step=1,
            trained_tokens=1,
            adapter=new_adapter(attempt),
            metrics={},
            result_files=[result],
        )
        result_id = jobs.get(session, principal, attempt.job_id).result_file_ids[0]
        assert result_id is not None
        with pytest.raises(InvalidRequest, match="fine-tune-results"):
            jobs.submit(session, principal, JobRequest("osora-tiny", result_id), registry.settings)


@pytest.mark.parametrize(
    ("before", "wish", "after", "signal"),
    [
        ("queued", "cancel", "cancelled", None),
        ("queued", "pause", "paused", None),
        ("queued", "resume", "queued", None),
        ("running", "cancel", "running", "cancel"),
        ("running", "pause", "running", "pause"),
        ("running", "resume", "running", None),
        ("pausing", "resume", "running", None),
        ("pausing", "cancel", "running", "cancel"),
        ("pausing", "pause", "running", "pause"),
        ("paused", "resume", "queued", None),
        ("paused", "cancel", "cancelled", None),
        ("paused", "pause", "paused", None),
        ("cancelled", "cancel", "cancelled", None),
        ("cancelling", "cancel", "running", "cancel"),
        ("cancelling", "pause", None, None),
        ("cancelling", "resume", None, None),
        ("cancelled", "pause", None, None),
        ("cancelled", "resume", None, None),
        ("succeeded", "cancel", None, None),
        ("succeeded", "pause", None, None),
        ("succeeded", "resume", None, None),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_wishes(
    registry: Registry, principal: Principal, before: str, wish: str, after: str | None, signal: str | None
) -> None:
    job = submit(registry, principal)
    if before in ("running", "pausing", "cancelling", "succeeded"):
        attempt = claim(registry, job)
        if before == "succeeded":
            with registry.transaction() as session:
                adapter = new_adapter(attempt)
                jobs.complete(session, attempt, step=1, trained_tokens=1, adapter=adapter, metrics={})
    if done := {"paused": "pause", "cancelled": "cancel", "pausing": "pause", "cancelling": "cancel"}.get(before):
        ask(registry, principal, done, job)
    if after is None:
        with pytest.raises(Conflict, match=job.id):
            ask(registry, principal, wish, job)
        return
    answer = ask(registry, principal, wish, job)
    assert (answer.status, answer.signal) == (after, signal)
    history = messages(registry, principal, job)
    again = ask(registry, principal, wish, job)
    assert (again.status, again.signal) == (after, signal)
    assert messages(registry, principal, job) == history  # asking twice changes nothing


def test_progress_and_events(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        before = session.scalars(select(now_seconds())).one()
        jobs.record_progress(
            session,
            attempt,
            step=1,
            total_steps=4,
            trained_tokens=64,
            metrics={"train_loss": 2.5, "epoch": 0.25},
            compute_seconds=1.5,
            remaining_seconds=3600.4,
        )
        after = session.scalars(select(now_seconds())).one()
        jobs.add_event(session, attempt, "careful", level="warn", data={"x": 1})
    now = read(registry, principal, job)
    assert (now.step, now.total_steps, now.trained_tokens) == (1, 4, 64)
    assert now.estimated_finish is not None
    assert before <= now.estimated_finish - 3600 <= after  # by the database's clock, whatever the worker's says
    with registry.reading() as session:
        page = jobs.events(session, principal, job.id)
        metrics, warning = page.data[-2:]
        assert (metrics.type, metrics.message) == ("metrics", "Step 1/4, training loss 2.5000")
        assert metrics.data == {"step": 1, "total_steps": 4, "train_loss": 2.5, "epoch": 0.25}
        assert (warning.level, warning.type, warning.data) == ("warn", "message", {"x": 1})


def test_events_page_both_ways(registry: Registry, principal: Principal) -> None:
    job, other = submit(registry, principal), submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        for number in range(7):
            jobs.add_event(session, attempt, f"event {number}")
            jobs.events(session, principal, other.id)
    with registry.reading() as session:
        everything = [event.id for event in jobs.events(session, principal, job.id, limit=100).data]
        assert len(everything) == 10
        assert everything == sorted(everything)
        seen: list[int] = []
        while True:
            page = jobs.events(session, principal, job.id, after_id=seen[-1] if seen else None, limit=3)
            seen += [event.id for event in page.data]
            if not page.has_more:
                break
        assert seen == everything
        newest = jobs.events(session, principal, job.id, limit=4, order="desc")
        assert [event.id for event in newest.data] == everything[:-5:-1]
        older = jobs.events(session, principal, job.id, after_id=newest.data[-1].id, limit=100, order="desc")
        assert [event.id for event in older.data] == everything[-5::-1]
        assert not older.has_more


def test_jobs_page_by_cursor_and_filter(registry: Registry, principal: Principal) -> None:
    training_file = upload(registry, principal).id
    made = [
        submit(
            registry,
            principal,
            training_file=training_file,
            metadata={"n": str(number), "odd": str(number % 2)},
        ).id
        for number in range(5)
    ]
    with registry.reading() as session:
        first = jobs.list(session, principal, limit=2)
        assert ([job.id for job in first.data], first.has_more) == (made[:2:-1], True)
        rest = jobs.list(session, principal, limit=3, after=first.data[-1].id)
        assert ([job.id for job in rest.data], rest.has_more) == (made[2::-1], False)
        ascending = jobs.list(session, principal, order="asc", after=made[1], limit=2)
        assert [job.id for job in ascending.data] == made[2:4]
        odd = jobs.list(session, principal, metadata={"odd": "1"}, order="asc")
        assert [job.id for job in odd.data] == [made[1], made[3]]
        assert jobs.list(session, principal, metadata={"odd": "1", "n": "2"}).data == []
        assert jobs.list(session, principal, status="running").data == []
        with pytest.raises(NotFound) as caught:
            jobs.list(session, principal, after="ftjob-none")
    assert caught.value.param == "after"


def test_checkpoints_page_newest_first(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal)
    attempt = claim(registry, job)
    with registry.transaction() as session:
        superseded = [
            record_checkpoint(session, attempt, step, metrics={"step": step})
            for step in (1, 2, 3, 3)  # the last one's commit was not heard of, so it comes again
        ]
        assert superseded == [[], [], [f"checkpoints/{job.id}/1/1.safetensors", f"checkpoints/{job.id}/1/1.zip"], []]
    with registry.reading() as session:
        page = jobs.checkpoints(session, principal, job.id, limit=1)
        assert ([row.step for row in page.data], page.has_more) == ([3], True)
        assert page.data[0].metrics == {"step": 3}
        rest = jobs.checkpoints(session, principal, job.id, after=page.data[-1].id)
        assert [row.step for row in rest.data] == [2]
        with pytest.raises(InvalidRequest, match="ftckpt_none"):
            jobs.checkpoints(session, principal, job.id, after="ftckpt_none")


def test_queue_positions(registry: Registry, principal: Principal, stranger: Principal) -> None:
    first, second, third = (
        submit(registry, principal),
        submit(registry, stranger),
        submit(registry, principal),
    )
    with registry.reading() as session:
        assert [jobs.queue_position(session, job) for job in (first, second, third)] == [0, 1, 2]
    claim(registry, first)
    with registry.reading() as session:
        now = [jobs.get(session, principal, job.id) for job in (first, third)]
        assert [jobs.queue_position(session, job) for job in now] == [None, 1]
    with registry.transaction() as session:
        session.execute(update(Job).where(Job.id == second.id).values(base="another"))
    with registry.reading() as session:
        rows = [session.get_one(Job, job.id) for job in (first, second, third)]
        assert jobs.queue_positions(session, rows) == {second.id: 0, third.id: 0}
        assert jobs.queue_positions(session, []) == {}


def test_a_file_in_use_cannot_be_deleted(registry: Registry, principal: Principal) -> None:
    training, validation = upload(registry, principal), upload(registry, principal)
    job = submit(registry, principal, training_file=training.id, validation_file=validation.id)
    for file in (training, validation):
        with pytest.raises(Conflict, match=job.id):
            files.delete(registry, principal, file.id)
    ask(registry, principal, "cancel", job)
    for file in (training, validation):
        files.delete(registry, principal, file.id)
        assert registry.store.size(file.object_key) is None
    assert read(registry, principal, job).training_file_id == training.id
