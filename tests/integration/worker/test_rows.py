"""Which rows of its files a job trains on: too long ones, and those that are held out to validate on."""

import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from osora_core.data import Renderer
from osora_core.runtime import Runtime
from osora_core.training import TrainingEngine
from registry import files, jobs
from registry.context import Registry
from registry.models import Job, JobEvent
from registry.tenants import Principal
from tests.integration.worker.conftest import BASE, RANK
from tests.support.jobs import claim, messages, read, submit
from tests.support.places import a_place
from worker.attempt import run_attempt
from worker.reports import Reports
from worker.threads import EngineThread

Train = Callable[..., Job]
LIMIT = 24


def chat(question: str, answer: str = "order") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def store(registry: Registry, principal: Principal) -> Callable[..., str]:
    def make(rows: list[dict[str, Any]]) -> str:
        data = "".join(json.dumps(row) + "\n" for row in rows)
        return files.ingest(registry, principal, io.BytesIO(data.encode()), "rows.jsonl", "fine-tune").id

    return make


@pytest.fixture
def mixed(store: Callable[..., str], runtime: Runtime) -> str:
    """Twelve rows, of which line 3 is too long by its answer and line 7 by its prompt."""
    rows = [chat(f"help {i}") for i in range(12)]
    rows[2] = chat("help", "please " * 40)
    rows[6] = chat("please " * 40)
    short = Renderer(runtime.tokenizer, runtime.max_length).render(rows[0], 1)
    assert len(short) < LIMIT
    return store(rows)


def counts(job: Job) -> dict[str, int]:
    assert job.plan is not None
    found: dict[str, int] = job.plan["rows"]
    return found


def test_by_default_all_too_long_rows_are_named_and_none_is_trained(train: Train, mixed: str) -> None:
    job = train(training_file=mixed, osora={"max_length": LIMIT})
    assert (job.status, job.step) == ("failed", 0)
    assert job.error is not None
    assert (job.error["code"], job.error["fault"], job.error["line"]) == ("invalid_data", "user", 3)
    assert f"file {mixed}, 2 of 12 rows are more than {LIMIT} tokens long: line 3 (" in job.error["message"]
    assert ", line 7 (" in job.error["message"]
    assert "osora.overlong" in job.error["next_action"]
    assert "raise osora.max_length" in job.error["next_action"]


@pytest.mark.parametrize(
    ("overlong", "rows", "said"),
    [
        (
            "drop",
            {"training": 10, "validation": 0, "dropped": 2, "truncated": 0},
            [f"Dropped 2 of 12 rows longer than {LIMIT} tokens: lines 3, 7"],
        ),
        (
            "truncate",
            {"training": 11, "validation": 0, "dropped": 1, "truncated": 1},
            [
                f"Dropped 1 of 12 rows longer than {LIMIT} tokens: line 7",
                f"Truncated 1 of 12 rows to {LIMIT} tokens: line 3",
            ],
        ),
    ],
)
def test_they_go_or_are_cut_and_are_counted(
    train: Train,
    mixed: str,
    events: Callable[[Job], list[JobEvent]],
    overlong: str,
    rows: dict[str, int],
    said: list[str],
) -> None:
    job = train(training_file=mixed, osora={"max_length": LIMIT, "overlong": overlong})
    assert job.status == "succeeded", job.error
    assert counts(job) == rows
    told = [event for event in events(job) if event.message.startswith(("Dropped", "Truncated"))]
    assert [event.message for event in told] == said
    assert {event.level for event in told} == {"warn"}
    assert (told[0].data or {})["lines"][-1] == 7
    assert f"{rows['training']} rows" in next(e.message for e in events(job) if e.message.startswith("Training "))


def test_it_holds_for_validation_rows_too(train: Train, mixed: str, store: Callable[..., str]) -> None:
    training_file = store([chat(f"help {i}") for i in range(8)])
    knobs = {"max_length": LIMIT, "overlong": "drop"}
    job = train(training_file=training_file, validation_file=mixed, osora=knobs)
    assert counts(job) == {"training": 8, "validation": 10, "dropped": 2, "truncated": 0}
    refused = train(training_file=training_file, validation_file=mixed, osora={"max_length": LIMIT})
    assert refused.error is not None
    assert mixed in refused.error["message"]


def test_where_all_are_dropped_nothing_is_trained(train: Train, store: Callable[..., str]) -> None:
    job = train(training_file=store([chat("please " * 40)] * 3), osora={"max_length": LIMIT, "overlong": "drop"})
    assert (job.status, job.step) == ("failed", 0)
    assert job.error is not None
    assert "leaves none to train on" in job.error["message"]


def test_a_sweep_counts_what_its_members_train_on(train: Train, store: Callable[..., str]) -> None:
    rows = [chat(f"help {i}") for i in range(22)] + [chat("please " * 40)] * 2
    knobs = {"learning_rate": [0.03, 0.1], "max_length": LIMIT, "overlong": "drop"}
    job = train(1, training_file=store(rows), osora=knobs)
    assert job.status == "succeeded", job.error
    assert counts(job) == {"training": 20, "validation": 0, "dropped": 2, "truncated": 0}


def test_pairs_are_dropped_and_held_out_like_answers(train: Train, store: Callable[..., str]) -> None:
    def pair(question: str) -> dict[str, Any]:
        return {
            "input": {"messages": [{"role": "user", "content": question}]},
            "preferred_output": [{"role": "assistant", "content": "order"}],
            "non_preferred_output": [{"role": "assistant", "content": "refund"}],
        }

    rows = [pair(f"help {i}") for i in range(10)] + [pair("please " * 40)]
    knobs = {"max_length": LIMIT, "overlong": "truncate", "validation_share": 0.2}
    job = train(1, training_file=store(rows), method="dpo", osora=knobs)
    assert job.status == "succeeded", job.error
    assert counts(job) == {"training": 8, "validation": 2, "dropped": 1, "truncated": 0}


def test_held_out_rows_are_validated_on_as_those_of_a_file(
    train: Train, store: Callable[..., str], events: Callable[[Job], list[JobEvent]]
) -> None:
    training_file = store([chat(f"help {i % 10}") for i in range(20)])
    knobs = {"validation_share": 0.2, "early_stopping_patience": 1, "keep": "best"}
    job = train(3, training_file=training_file, osora=knobs)
    assert job.status == "succeeded", job.error
    assert counts(job) == {"training": 16, "validation": 4, "dropped": 0, "truncated": 0}
    told = events(job)
    assert "Held out 4 of 20 rows (20.0%) to validate on" in [event.message for event in told]
    measured = [event.data for event in told if event.type == "metrics" and "valid_loss" in (event.data or {})]
    assert measured
    assert all(data is not None and "valid_exact_match" in data for data in measured)


def test_a_file_with_one_prompt_has_none_to_hold_out(train: Train, store: Callable[..., str]) -> None:
    job = train(training_file=store([chat("help", f"order {i}") for i in range(5)]), osora={"validation_share": 0.2})
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["param"], job.error["fault"]) == ("osora.validation_share", "user")


def test_an_attempt_that_resumes_finds_its_checkpoint_to_be_its_own(
    registry: Registry, principal: Principal, engine: EngineThread, mixed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that a job drops, cuts and holds out are part of what a checkpoint is for."""
    knobs = {"rank": RANK, "max_length": LIMIT, "overlong": "truncate", "validation_share": 0.3, "checkpoint_steps": 1}
    hyperparameters = {"n_epochs": 40, "batch_size": 4}
    job = submit(
        registry, principal, base=BASE, seed=3, training_file=mixed, osora=knobs, hyperparameters=hyperparameters
    )
    reports, leaves = Reports(), threading.Event()
    stepped, post = reports.progress, engine.post

    def posting(function: Callable[[TrainingEngine], Any]) -> Future[Any]:
        future = post(function)
        leaves.set()
        return future

    def drain_after_a_while(progress: Any) -> None:
        stepped(progress)
        if progress.step == 5:  # and the engine takes no other before the attempt asks it to let go
            monkeypatch.setattr(engine, "post", posting)
            reports.signal("drain")
            assert leaves.wait(60)

    reports.progress = drain_after_a_while  # type: ignore[method-assign]
    run_attempt(registry, engine, claim(registry, job), reports, a_place())
    left = read(registry, principal, job)
    assert left.status == "queued"
    run_attempt(registry, engine, claim(registry, job), Reports(), a_place())
    done = read(registry, principal, job)
    assert done.status == "succeeded", done.error
    said = messages(registry, principal, job)
    assert not [message for message in said if "cannot be used" in message]
    assert len([message for message in said if message.startswith("Held out")]) == 1
    with registry.reading() as session:
        second = jobs.attempts(session, principal, job.id)[1]
    assert second.first_step >= 5
