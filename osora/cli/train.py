"""`osora train`, and the watching that it shares with `osora jobs watch`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from osora.cli.flags import in_flags
from osora.cli.output import ExitCode, Json, console, print_error, print_json, print_json_line, say, sentences
from osora.cli.watch import watch
from osora.errors import OsoraError
from osora.schemas import Job
from osora.sdk import Osora

ExistingFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")]


def train(
    file: ExistingFile,
    validation: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="Held-out examples, JSONL."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The base; may be left out if there is one only.")] = None,
    suffix: Annotated[str | None, typer.Option(help="A word in the adapter's name.")] = None,
    method: Annotated[
        Literal["supervised", "dpo"], typer.Option(help="dpo: FILE holds preferences between two answers.")
    ] = "supervised",
    beta: Annotated[
        float | None, typer.Option(min=0, max=2, help="Of dpo: how much a gain over the base counts.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the file.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a step.")] = None,
    learning_rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="The peak: a number, several (0.01,0.03,0.1), or sweep.")
    ] = None,
    sigma_rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="How many times faster than o the vector s learns: a number or several."),
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Directions of the shared basis to use.")] = None,
    priority: Annotated[
        Literal["low", "normal", "high"] | None, typer.Option(help="Which of your own jobs goes first.")
    ] = None,
    from_adapter: Annotated[
        str | None, typer.Option(metavar="ADAPTER", help="Go on from an adapter or a checkpoint, by id, name or alias.")
    ] = None,
    keep: Annotated[
        Literal["best", "last"] | None,
        typer.Option(help="The state to publish; best, by validation loss, is the default if there is one."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a lower validation loss.")
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPT", help="Show the answer to this after every epoch. Up to four times."),
    ] = None,
    follow: Annotated[bool, typer.Option("--watch/--no-watch", help="Watch until the end, or return at once.")] = True,
    as_json: Json = False,
) -> None:
    """Fine-tune on FILE (JSONL) and get an adapter.

    Each line is {"messages": [{"role", "content"}, …]} or {"prompt", "completion"}; for dpo, {"input": {"messages"},
    "preferred_output", "non_preferred_output"}. What is left out, the service chooses. With --json: JSON lines, the
    events and at last the job; with --no-watch the job only.
    """
    rates = _rates(learning_rate, "--learning-rate", ("auto", "sweep"))
    sigma_rates = _rates(sigma_rate, "--sigma-rate", ())
    with Osora() as osora:
        model = base or chosen_base(osora, None)
        training = osora.files.upload(file)
        held_out = osora.files.upload(validation) if validation else None
        job = osora.jobs.create(
            model,
            training["id"],
            validation_file=held_out["id"] if held_out else None,
            suffix=suffix,
            **_method(method, _given(n_epochs=epochs, batch_size=batch_size, beta=beta)),
            osora=_given(
                learning_rate=rates,
                sigma_rate=sigma_rates,
                rank=rank,
                priority=priority,
                from_adapter=from_adapter,
                keep=keep,
                early_stopping_patience=patience,
                sample_prompts=sample or None,
            ),
        )
        if follow:
            if not as_json:
                say(f"Job {job['id']} on {model}. Ctrl-C stops the watching, not the job.")
            watch_to_exit(osora, job["id"], as_json)
        elif as_json:
            print_json(job)
        else:
            say(f"Job {job['id']} is {job['status']}. Watch it: osora jobs watch {job['id']}")


def watch_to_exit(osora: Osora, job_id: str, as_json: bool) -> None:
    """Show the job until it has ended. Raises `typer.Exit` with 1 if it did not succeed, 130 on Ctrl-C."""
    try:
        if as_json:
            for event in osora.jobs.events(job_id):
                print_json_line(event)
            job = osora.jobs.get(job_id)
            print_json_line(job)
        else:
            job, _ = watch(osora, job_id, console())
            say(_ending(osora, job))
    except KeyboardInterrupt:
        back = f"`osora jobs watch {job_id}` comes back to it, `osora jobs cancel {job_id}` ends it"
        print_error(f"Stopped watching; job {job_id} goes on", back, as_json, code="interrupted", job_id=job_id)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if job["status"] != "succeeded":
        raise typer.Exit(ExitCode.FAILED)


def _ending(osora: Osora, job: Job) -> str:
    details = job.get("osora") or {}
    if job["status"] == "succeeded":
        ask = f'osora generate "…"{_raw(osora, job)} --adapter {details["adapter_id"]}'
        return f"Adapter {job['fine_tuned_model']}. Use it: {ask}"
    error = job.get("error")
    if not error:
        return f"Job {job['id']} is {job['status']}."
    next_step = error.get("next_action")
    message = in_flags(error["message"], error.get("param"))
    return sentences(f"Job {job['id']} {job['status']}: {message}", in_flags(next_step) if next_step else None)


def _raw(osora: Osora, job: Job) -> str:
    """The flag that asks an adapter as it was trained; none where the training file is gone."""
    try:
        file = osora.files.get(job["training_file"])
    except OsoraError:
        return ""
    return " --raw" if (file.get("osora") or {}).get("format") == "completion" else ""


def chosen_base(osora: Osora, name: str | None) -> str:
    """A base on offer: the one named, or the only one. Raises `typer.BadParameter`."""
    names = [base["name"] for base in osora.bases()]
    if (name is None and len(names) != 1) or (name is not None and name not in names):
        raise typer.BadParameter(f"name one of: {', '.join(names) or '(none)'}", param_hint="--base")
    return name or names[0]


def _rates(text: str | None, option: str, words: tuple[str, ...]) -> str | float | list[float] | None:
    """`0.03` as a number, `0.01,0.03` as a list, and a word that the service knows as it is."""
    if text is None or text in words:
        return text
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        known = "".join(f" or {word!r}" for word in words)
        raise typer.BadParameter(
            f"{text!r} is not a number, a list such as 0.01,0.03{known}", param_hint=option
        ) from None
    return rates[0] if len(rates) == 1 else rates


def _method(method: str, hyperparameters: dict[str, Any] | None) -> dict[str, Any]:
    """The fields that say how to train. Raises `typer.BadParameter` for a beta that would go unused."""
    if method == "supervised":
        if hyperparameters and "beta" in hyperparameters:
            raise typer.BadParameter("it is for --method dpo", param_hint="--beta")
        return {"hyperparameters": hyperparameters}
    return {"method": {"type": method, method: {"hyperparameters": hyperparameters or {}}}}


def _given(**options: Any) -> Any:
    """A dictionary of the options that were given; None if none was."""
    return {name: value for name, value in options.items() if value is not None} or None
