"""`osora jobs`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from osora.cli.dial import point_fields
from osora.cli.figures import of_event
from osora.cli.flags import in_flags
from osora.cli.following import follow_to_exit
from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, most, show_list, tell_of_more
from osora.cli.names import completing
from osora.cli.output import Json, ago, duration, print_fields, print_json, print_json_line, say, when
from osora.cli.transfers import new_path, receiving
from osora.schemas import ENDED, Attempt, Checkpoint, Job, JobDetails, Point
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Fine-tuning jobs. Without a command: the newest ones.")
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Its id, as `osora jobs` lists it.", autocompletion=completing("job"))
]


@app.callback()
def default(context: typer.Context, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_jobs(limit, every, as_json)


@app.command("list")
def list_jobs(limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    """The newest jobs."""
    with Osora() as osora:
        jobs = fetch(osora.jobs.list(most(limit, every)))
    columns = ("job", "status", "suffix", "base", "step", "created", "adapter")
    spare = ("adapter", "base", "suffix", "step")
    show_list(jobs, as_json, columns, _row, "No jobs. Next: osora train FILE.jsonl", spare=spare)


@app.command()
def show(job_id: JobId, as_json: Json = False) -> None:
    """One job: its state, its figures, and each attempt at it."""
    with Osora() as osora:
        job = osora.jobs.get(job_id)
        is_measured = bool(job.get("validation_file")) or job["status"] == "succeeded"
        kept = list(osora.jobs.checkpoints(job_id)) if is_measured and not as_json else []
    _show(job, as_json, kept)


@app.command()
def results(
    job_id: JobId,
    output: Annotated[
        Path, typer.Option("--output", "-o", exists=True, file_okay=False, help="The folder to put them in.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Save a job's result files: its figures step by step, as CSV."""
    saved = []
    with Osora() as osora:
        names = {
            file_id: Path(osora.files.get(file_id)["filename"]).name or file_id
            for file_id in osora.jobs.get(job_id).get("result_files", [])
        }
    for file_id, name in names.items():
        path = new_path(output / name)
        with receiving(name, as_json) as osora:
            osora.files.download(file_id, path)
        saved.append(str(path))
        if not as_json:
            say(str(path))
    if as_json:
        print_json(saved)
    elif not saved:
        say("No result files yet.")


@app.command()
def events(job_id: JobId, limit: Limit = 100, every: All = False, as_json: Json = False) -> None:
    """What has happened so far, oldest first (`watch` waits for more). With --json: JSON lines."""
    with Osora() as osora:
        newest_first = fetch(osora.jobs.list_events(job_id, most(limit, every)))
    for event in reversed(newest_first):
        if as_json:
            print_json_line(event)
        else:
            say(f"{when(event['created_at'])}  {of_event(event)}")
    tell_of_more(newest_first, as_json)


@app.command()
def checkpoints(job_id: JobId, limit: Limit = 100, every: All = False, as_json: Json = False) -> None:
    """The states of a job that can be called, newest first: osora generate "…" --adapter NAME."""
    with Osora() as osora:
        found = fetch(osora.jobs.checkpoints(job_id, most(limit, every)))
    columns = ("step", "validation loss", "exact match", "name")
    show_list(found, as_json, columns, _checkpoint_row, "No checkpoints.")


@app.command()
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Watch a job until it has ended; the exit code says whether it succeeded. With --json: JSON lines."""
    with Osora() as osora:
        follow_to_exit(osora, job_id, as_json)


@app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """End a job for good."""
    with Osora() as osora:
        _show(osora.jobs.cancel(job_id), as_json)


@app.command()
def pause(job_id: JobId, as_json: Json = False) -> None:
    """Stop a job at its next step, to be resumed later."""
    with Osora() as osora:
        _show(osora.jobs.pause(job_id), as_json)


@app.command()
def resume(job_id: JobId, as_json: Json = False) -> None:
    """Take a paused job up again where it was."""
    with Osora() as osora:
        _show(osora.jobs.resume(job_id), as_json)


def _figure(checkpoint: Checkpoint, name: str, form: str) -> str:
    value = checkpoint["metrics"].get(name)
    return "" if value is None else format(value, form)


def _loss(checkpoint: Checkpoint | None, name: str) -> str | None:
    """`0.2500 at step 8`; None if it was not measured."""
    figure = _figure(checkpoint, name, ".4f") if checkpoint else ""
    return f"{figure} at step {checkpoint['step_number']}" if checkpoint and figure else None


def _row(job: Job) -> tuple[object, ...]:
    return (
        job["id"],
        job["status"],
        job.get("user_provided_suffix"),
        job["model"],
        _steps(job),
        ago(job["created_at"]),
        _adapter(job),
    )


def _checkpoint_row(checkpoint: Checkpoint) -> tuple[object, ...]:
    return (
        checkpoint["step_number"],
        _figure(checkpoint, "valid_loss", ".4f"),
        _figure(checkpoint, "valid_exact_match", ".0%"),
        checkpoint["fine_tuned_model_checkpoint"],
    )


def _steps(job: Job) -> str:
    details = job.get("osora") or {}
    step, total = details.get("step"), details.get("total_steps")
    return f"{step or 0}/{total}" if total else ""


def _published(job: Job, checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The evaluation that the job's adapter goes by: the lowest loss so far, or the last where that is kept."""
    evaluated = [checkpoint for checkpoint in checkpoints if "valid_loss" in checkpoint["metrics"]]
    if not evaluated:
        return None
    if ((job.get("osora") or {}).get("settings") or {}).get("keep") == "last":
        return max(evaluated, key=lambda checkpoint: checkpoint["step_number"])
    return min(evaluated, key=lambda checkpoint: (checkpoint["metrics"]["valid_loss"], checkpoint["step_number"]))


def _show(job: Job, as_json: bool, kept: Sequence[Checkpoint] = ()) -> None:
    if as_json:
        print_json(job)
        return
    evaluated = _published(job, kept)
    newest = max(kept, key=lambda checkpoint: checkpoint["step_number"], default=None)
    details, error = job.get("osora") or {}, job.get("error")
    compute = details.get("compute_seconds")
    print_fields(
        {
            "job": job["id"],
            "status": job["status"],
            "requested": details.get("requested"),
            "waiting for": details.get("waiting_for"),
            "jobs ahead": details.get("queue_position"),
            "base": job["model"],
            "suffix": job.get("user_provided_suffix"),
            "method": (job.get("method") or {}).get("type"),
            "priority": (details.get("settings") or {}).get("priority"),
            **point_fields(_points(details)),
            "epochs": (job.get("hyperparameters") or {}).get("n_epochs"),
            "training file": job["training_file"],
            "validation": job.get("validation_file"),
            "rows": _rows(details.get("rows")),
            "step": _steps(job),
            "learning rate": (details.get("resolved") or {}).get("learning_rate"),
            "train. loss": _loss(newest, "train_loss"),
            "valid. loss": _loss(evaluated, "valid_loss"),
            "exact match": _figure(evaluated, "valid_exact_match", ".0%") if evaluated else None,
            "accuracy": _figure(evaluated, "valid_reward_accuracy", ".0%") if evaluated else None,
            "margin": _figure(evaluated, "valid_reward_margin", ".2f") if evaluated else None,
            "tokens": job.get("trained_tokens"),
            "compute": duration(compute) if compute else None,
            "created": when(job["created_at"]),
            "started": when(details.get("started_at")),
            "likely start": when(details.get("estimated_start")),
            "likely end": when(job.get("estimated_finish")),
            "finished": when(job.get("finished_at")),
            "adapter": _adapter(job),
            "adapter id": details.get("adapter_id"),
            "result file": ", ".join(job.get("result_files") or []),
            "fetch it": f"osora jobs results {job['id']}" if job.get("result_files") else None,
            "error": in_flags(error["message"], error.get("param")) if error else None,
            "next": in_flags(error.get("next_action") or "") if error else _next(job),
        }
    )
    for attempt in details.get("attempts", []):
        _show_attempt(attempt)


def _points(details: JobDetails) -> Sequence[Point]:
    """What it trains; of a sweep over presets, what that has chosen once it has."""
    points, resolved = details.get("points") or [], details.get("resolved") or {}
    chosen = [p for p in points if (p["rank"], p["mix"]) == (resolved.get("rank"), resolved.get("mix"))]
    return chosen or points


def _adapter(job: Job) -> str | None:
    """Its name, and whether it is still there."""
    name = job.get("fine_tuned_model")
    return f"{name} (deleted)" if name and _is_deleted(job) else name


def _is_deleted(job: Job) -> bool:
    return job["status"] == "succeeded" and (job.get("osora") or {"adapter_id": ""}).get("adapter_id", "") is None


def _rows(counts: Any) -> str:
    counts = counts or {}
    words = {"training": "to train on", "validation": "to validate on", "truncated": "truncated", "dropped": "dropped"}
    return ", ".join(f"{counts[name]} {said}" for name, said in words.items() if counts.get(name))


def _next(job: Job) -> str | None:
    """The command to type next."""
    if job["status"] == "succeeded":
        name = job.get("fine_tuned_model")
        return f"osora chat {name}" if name and not _is_deleted(job) else None
    if job["status"] == "paused":
        return f"osora jobs resume {job['id']}"
    return f"osora jobs watch {job['id']}" if job["status"] not in ENDED else None


def _show_attempt(attempt: Attempt) -> None:
    steps = f"steps {attempt['first_step']} to {attempt.get('last_step', '?')}"
    ended = attempt.get("finished_at")
    time = f"{when(attempt['started_at'])} to {when(ended)}" if ended else f"since {when(attempt['started_at'])}"
    cost = f"{duration(attempt.get('compute_seconds', 0))} of compute"
    say("")
    print_fields(
        {
            f"attempt {attempt['number']}": f"{attempt.get('outcome') or 'running'}, {steps}, {cost}",
            "  worker": attempt["worker_id"],
            "  time": time,
            "  why": attempt.get("reason"),
        }
    )
