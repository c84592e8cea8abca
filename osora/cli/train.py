"""`osora train`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from osora.cli.bases import chosen_base
from osora.cli.datasets import Datasets
from osora.cli.following import follow_to_exit
from osora.cli.forecast import show_forecast
from osora.cli.names import completing
from osora.cli.output import Json, busy, print_json, say
from osora.sdk import Osora

ExistingFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")]


def train(
    file: ExistingFile,
    validation: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="Held-out examples."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The base; may be left out if there is one only.", autocompletion=completing("base")),
    ] = None,
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
    rank: Annotated[
        str | None, typer.Option(metavar="N|full", help="Directions of the shared basis to use, or all that there are.")
    ] = None,
    priority: Annotated[
        Literal["low", "normal", "high"] | None, typer.Option(help="Which of your own jobs goes first.")
    ] = None,
    from_adapter: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER",
            help="Go on from an adapter or a checkpoint, by id, name or alias.",
            autocompletion=completing("adapter"),
        ),
    ] = None,
    keep: Annotated[
        Literal["best", "last"] | None,
        typer.Option(help="The state to publish; best, by validation loss, is the default if there is one."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a lower validation loss.")
    ] = None,
    overlong: Annotated[
        Literal["refuse", "truncate", "drop"] | None,
        typer.Option(help="What becomes of rows that are too long for the base; default: refuse."),
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Hold out this share of the rows (below 0.5) to validate on."),
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPT", help="Show the answer to this after every epoch. Up to four times."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take and when it would end, and train nothing.")
    ] = False,
    probe: Annotated[
        int | None, typer.Option(min=1, max=50, metavar="STEPS", help="With --dry-run: take so many real steps.")
    ] = None,
    follow: Annotated[bool, typer.Option("--watch/--no-watch", help="Watch until the end, or return at once.")] = True,
    as_json: Json = False,
) -> None:
    """Fine-tune on FILE and get an adapter.

    FILE is JSON Lines, a JSON array, CSV or Parquet, plain, .gz or .zst. Its rows are {"messages": [{"role",
    "content"}, …]}, {"prompt", "completion"}, {"text"}, Alpaca's or ShareGPT's; for dpo {"prompt", "chosen",
    "rejected"}, or OpenAI's. `osora files check FILE` says what is wrong with it. What is left out, the service
    chooses. With --json: JSON lines, the events and at last the job; with --no-watch the job only, with --dry-run the
    forecast.
    """
    if probe is not None and not dry_run:
        raise typer.BadParameter("it is for --dry-run", param_hint="--probe")
    rates = _rates(learning_rate, "--learning-rate", ("auto", "sweep"))
    sigma_rates = _rates(sigma_rate, "--sigma-rate", ())
    rank_asked = _rank(rank)
    with Osora() as osora:
        model = chosen_base(osora, base)
        with Datasets(osora, as_json) as datasets:
            training = datasets.add(file)
            held_out = datasets.add(validation) if validation else None
            fields = {
                "validation_file": held_out,
                "suffix": suffix,
                **_method(method, _given(n_epochs=epochs, batch_size=batch_size, beta=beta)),
                "osora": _given(
                    learning_rate=rates,
                    sigma_rate=sigma_rates,
                    rank=rank_asked,
                    priority=priority,
                    from_adapter=from_adapter,
                    keep=keep,
                    early_stopping_patience=patience,
                    overlong=overlong,
                    validation_share=validation_share,
                    sample_prompts=sample or None,
                ),
            }
            if dry_run:
                with busy(f"taking {probe} steps" if probe else "looking ahead", as_json):
                    forecast = osora.jobs.dry_run(model, training, probe=probe, **fields)
                if as_json:
                    print_json(forecast)
                else:
                    show_forecast(forecast)
                return
            job = osora.jobs.create(model, training, **fields)
            datasets.keep()
        if follow:
            if not as_json:
                say(f"Job {job['id']} on {model}. Ctrl-C stops the watching, not the job.")
            follow_to_exit(osora, job["id"], as_json)
        elif as_json:
            print_json(job)
        else:
            say(f"Job {job['id']} is {job['status']}. Watch it: osora jobs watch {job['id']}")


def _rank(text: str | None) -> int | Literal["full"] | None:
    if text is None:
        return None
    if text == "full":
        return "full"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is no number from 1 on, nor 'full'", param_hint="--rank")
    return int(text)


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
