"""`osora jobs`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from osora.cli.flags import in_flags
from osora.cli.output import Json, duration, print_fields, print_json, print_json_line, print_table, say, when
from osora.cli.train import watch_to_exit
from osora.cli.watch import sample
from osora.schemas import Attempt, Checkpoint, Job
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Fine-tuning jobs. Without a command: the newest ones.")
JobId = Annotated[str, typer.Argument(metavar="JOB")]
Limit = Annotated[int, typer.Option(min=1, max=100, help="How many.")]


@app.callback()
def default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_jobs(as_json=as_json)


@app.command("list")
def list_jobs(limit: Limit = 20, as_json: Json = False) -> None:
    """The newest jobs."""
    with Osora() as osora:
        jobs = list(osora.jobs.list(limit=limit))
    if as_json:
        print_json(jobs)
        return
    rows = [(j["id"], j["status"], j["model"], _steps(j), when(j["created_at"]), j["fine_tuned_model"]) for j in jobs]
    print_table(("job", "status", "base", "step", "created", "adapter"), rows, "No jobs. Next: osora train FILE.jsonl")


@app.command()
def show(job_id: JobId, as_json: Json = False) -> None:
    """One job: its state, its figures, and each attempt at it."""
    with Osora() as osora:
        job = osora.jobs.get(job_id)
        evaluated = osora.jobs.checkpoints(job_id) if job.get("validation_file") and not as_json else ()
        published = _published(job, evaluated)
    _show(job, as_json, published)


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
        for file_id in osora.jobs.get(job_id).get("result_files", []):
            path = output / Path(osora.files.get(file_id)["filename"]).name
            if path.exists():
                raise typer.BadParameter(f"{path} exists already; name another folder", param_hint="--output")
            path.write_bytes(osora.files.content(file_id))
            saved.append(str(path))
            if not as_json:
                say(str(path))
    if as_json:
        print_json(saved)
    elif not saved:
        say("No result files yet.")


@app.command()
def events(job_id: JobId, limit: Limit = 100, as_json: Json = False) -> None:
    """What has happened so far, oldest first (`watch` waits for more). With --json: JSON lines."""
    with Osora() as osora:
        newest_first = list(osora.jobs.list_events(job_id, limit=limit))
    for event in reversed(newest_first):
        if as_json:
            print_json_line(event)
        else:
            data = event.get("data") or {}
            answered = f": {sample(data)}" if {"prompt", "text"} <= data.keys() else ""
            say(f"{when(event['created_at'])}  {event['message']}{answered}")


@app.command()
def checkpoints(job_id: JobId, limit: Limit = 100, as_json: Json = False) -> None:
    """The states of a job that can be called, newest first: osora generate "…" --adapter NAME."""
    with Osora() as osora:
        found = list(osora.jobs.checkpoints(job_id, limit=limit))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            c["step_number"],
            _figure(c, "valid_loss", ".4f"),
            _figure(c, "valid_exact_match", ".0%"),
            c["fine_tuned_model_checkpoint"],
        )
        for c in found
    ]
    print_table(("step", "validation loss", "exact match", "name"), rows, "No checkpoints.")


@app.command()
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Watch a job until it has ended; the exit code says whether it succeeded. With --json: JSON lines."""
    with Osora() as osora:
        watch_to_exit(osora, job_id, as_json)


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


def _steps(job: Job) -> str:
    details = job.get("osora") or {}
    step, total = details.get("step"), details.get("total_steps")
    return f"{step or 0}/{total}" if total else ""


def _published(job: Job, checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The evaluation that the job's adapter goes by: the lowest loss so far, or the last where that is kept."""
    evaluated = [checkpoint for checkpoint in checkpoints if "valid_loss" in checkpoint["metrics"]]
    if not evaluated:
        return None
    if ((job.get("osora") or {}).get("settings") or {}).get("keep") == "last":
        return max(evaluated, key=lambda checkpoint: checkpoint["step_number"])
    return min(evaluated, key=lambda checkpoint: (checkpoint["metrics"]["valid_loss"], checkpoint["step_number"]))


def _show(job: Job, as_json: bool, evaluated: Checkpoint | None = None) -> None:
    if as_json:
        print_json(job)
        return
    details, error = job.get("osora") or {}, job.get("error")
    compute = details.get("compute_seconds")
    at = f" at step {evaluated['step_number']}" if evaluated else ""
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
            "epochs": (job.get("hyperparameters") or {}).get("n_epochs"),
            "training file": job["training_file"],
            "validation": job.get("validation_file"),
            "step": _steps(job),
            "learning rate": (details.get("resolved") or {}).get("learning_rate"),
            "valid. loss": f"{_figure(evaluated, 'valid_loss', '.4f')}{at}" if evaluated else None,
            "exact match": _figure(evaluated, "valid_exact_match", ".0%") if evaluated else None,
            "tokens": job.get("trained_tokens"),
            "compute": duration(compute) if compute else None,
            "created": when(job["created_at"]),
            "started": when(details.get("started_at")),
            "likely start": when(details.get("estimated_start")),
            "likely end": when(job.get("estimated_finish")),
            "finished": when(job.get("finished_at")),
            "adapter": job.get("fine_tuned_model"),
            "adapter id": details.get("adapter_id"),
            "result file": ", ".join(job.get("result_files", [])),
            "error": in_flags(error["message"], error.get("param")) if error else None,
            "next": in_flags(error.get("next_action") or "") if error else None,
        }
    )
    for attempt in details.get("attempts", []):
        _show_attempt(attempt)


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
