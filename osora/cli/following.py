"""Following a job until it has ended, for `osora train` and `osora jobs watch`."""

import typer

from osora.cli.figures import summary
from osora.cli.flags import in_flags
from osora.cli.output import ExitCode, console, print_error, print_json_line, say, sentences
from osora.cli.watch import watch
from osora.errors import OsoraError
from osora.schemas import Event, Job
from osora.sdk import Osora


def follow_to_exit(osora: Osora, job_id: str, as_json: bool) -> None:
    """Show the job until it has ended. Raises `typer.Exit` with 1 if it did not succeed, 130 on Ctrl-C."""
    try:
        if as_json:
            for event in osora.jobs.events(job_id):
                print_json_line(event)
            job = osora.jobs.get(job_id)
            print_json_line(job)
        else:
            job, events = watch(osora, job_id, console())
            for line in _ending(osora, job, events):
                say(line)
    except KeyboardInterrupt:
        back = f"`osora jobs watch {job_id}` comes back to it, `osora jobs cancel {job_id}` ends it"
        print_error(f"Stopped watching; job {job_id} goes on", back, as_json, code="interrupted", job_id=job_id)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if job["status"] != "succeeded":
        raise typer.Exit(ExitCode.FAILED)


def _ending(osora: Osora, job: Job, events: list[Event]) -> list[str]:
    """How it went, and the commands to type next."""
    details = job.get("osora") or {}
    if job["status"] == "succeeded":
        adapter, raw = job["fine_tuned_model"], _raw(osora, job)
        commands = [
            f'osora generate "…"{raw} --adapter {details["adapter_id"]}',
            f"osora jobs results {job['id']}",
            f"osora adapters export {adapter}",
        ]
        if not raw:
            commands.insert(0, f"osora chat {adapter}")
        return [*(f"  {line}" for line in summary(job, events)), f"Adapter {adapter}. Next:", *_indented(commands)]
    error = job.get("error")
    if not error:
        return [f"Job {job['id']} is {job['status']}."]
    next_step = error.get("next_action")
    message = in_flags(error["message"], error.get("param"))
    return [sentences(f"Job {job['id']} {job['status']}: {message}", in_flags(next_step) if next_step else None)]


def _indented(commands: list[str]) -> list[str]:
    return [f"  {command}" for command in commands]


def _raw(osora: Osora, job: Job) -> str:
    """The flag that asks an adapter as it was trained; none where the training file is gone."""
    try:
        file = osora.files.get(job["training_file"])
    except OsoraError:
        return ""
    return " --raw" if (file.get("osora") or {}).get("format") == "completion" else ""
