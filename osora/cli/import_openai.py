"""`osora import openai`."""

import os
from collections.abc import Mapping
from contextlib import closing
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from osora.cli.asking import is_asked
from osora.cli.bases import chosen_base
from osora.cli.import_jobs import choose, show_outcomes, show_plan
from osora.cli.output import ExitCode, Json, console, print_error, print_note, say
from osora.cli.record import Recording, record_answers
from osora.cli.watch import watch
from osora.discovery import discover, is_loopback
from osora.migrate.estimate import Prices
from osora.migrate.importing import Importer, Outcome
from osora.migrate.openai_api import KEY_VARIABLE, OpenAIClient, address
from osora.migrate.recording import Settings
from osora.sdk import Osora

# Of the help: the options that only a recording has.
_RECORD: Any = {"rich_help_panel": "With --record"}

app = typer.Typer(no_args_is_help=True, help="Bring what another service has.")


@app.callback()
def default() -> None:
    """With a callback, typer keeps the group although it has one command."""


@app.command()
def openai(
    every: Annotated[bool, typer.Option("--all", help="All jobs that have succeeded there.")] = False,
    job: Annotated[
        list[str] | None, typer.Option(metavar="FTJOB", help="This job there. May be given more than once.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Jobs that made this model (ft:…), or all on this base of theirs."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The base here; may be left out if there is one only.")] = None,
    hyperparameters: Annotated[
        Literal["theirs", "auto"], typer.Option(help="Epochs and batch size as they were there, or as suits here.")
    ] = "theirs",
    wait: Annotated[bool, typer.Option("--wait", help="Until the jobs have ended and have their old names.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            metavar="FILE",
            help="Instead: ask the model of --model the prompts of this JSONL file, and save its answers.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="Default: FILE-recorded here.", **_RECORD)
    ] = None,
    held_out_share: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Of the answers, not to train on. Default: 0.1.", **_RECORD)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the choice of those. Default: 0.", **_RECORD)] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Default: 0.", **_RECORD)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer, at most.", **_RECORD)] = None,
    requests_per_minute: Annotated[float | None, typer.Option(min=0.1, help="Default: 60.", **_RECORD)] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Requests at once. Default: 4.", **_RECORD)
    ] = None,
    price_in: Annotated[
        float | None, typer.Option(min=0, metavar="DOLLARS", help="For a million tokens of prompts.", **_RECORD)
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(min=0, metavar="DOLLARS", help="For a million tokens of answers.", **_RECORD)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it costs something.", **_RECORD)] = False,
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Default: OPENAI_BASE_URL, or OpenAI's own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring fine-tuning jobs from OpenAI, or (--record) what a model there answers.

    Copies the files, makes the jobs again on a base of this service, and lets the old model's name mean the new
    adapter. Run it again after a break, or to set the names once the jobs have ended: nothing is done twice.
    The key of theirs is read from OPENAI_API_KEY, or asked for.

    With --record, the answers come as a training file and a held-out file. It shows what that costs, and asks.
    """
    if record is not None:
        given: dict[str, object] = {"--all": every, "--job": job, "--base": base, "--wait": wait, "--dry-run": dry_run}
        _refuse(given, "it is for bringing jobs, and not for --record")
        settings = Settings(_one(model), temperature or 0.0, max_tokens, concurrency or 4)
        asked = Recording(
            file=record,
            settings=settings,
            folder=output or Path(f"{record.stem}-recorded"),
            held_out_share=0.1 if held_out_share is None else held_out_share,
            seed=seed or 0,
            per_minute=requests_per_minute or 60,
            prices=_prices(price_in, price_out),
            confirmed=yes,
        )
        record_answers(_address(source, discover().url, as_json), read_key(), asked, as_json)
        return
    given = {
        "--output": output,
        "--held-out-share": held_out_share,
        "--seed": seed,
        "--temperature": temperature,
        "--max-tokens": max_tokens,
        "--requests-per-minute": requests_per_minute,
        "--concurrency": concurrency,
        "--price-in": price_in,
        "--price-out": price_out,
        "--yes": yes,
    }
    _refuse(given, "it is for --record FILE")
    with Osora() as osora, closing(OpenAIClient(_address(source, osora.url, as_json), read_key())) as there:
        jobs = list(there.jobs())
        chosen = choose(jobs, every, job or [], model or [], dry_run, as_json)
        importer = Importer(
            there,
            osora,
            jobs,
            chosen_base(osora, base),
            keep_hyperparameters=hyperparameters == "theirs",
            tell=(lambda _: None) if as_json else say,
        )
        if dry_run:
            outcomes = [importer.look(one) for one in chosen]
            show_plan(outcomes, as_json)
        else:
            outcomes = _bring(osora, importer, chosen, wait, as_json)
    if any(outcome.is_wrong for outcome in outcomes):
        raise typer.Exit(ExitCode.FAILED)


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Raises `typer.BadParameter` for the first option that was given."""
    for name, value in given.items():
        if value is not None and value is not False and value != []:
            raise typer.BadParameter(why, param_hint=name)


def _one(models: list[str] | None) -> str:
    if not models or len(models) != 1:
        raise typer.BadParameter("name the one model to ask, as they name it (ft:…)", param_hint="--model")
    return models[0]


def _prices(price_in: float | None, price_out: float | None) -> Prices | None:
    if price_in is None and price_out is None:
        return None
    if price_in is None or price_out is None:
        raise typer.BadParameter("a cost needs both prices", param_hint="--price-in, --price-out")
    return Prices(price_in, price_out)


def _address(given: str | None, osora_url: str, as_json: bool) -> str:
    url = address(given, osora_url)
    if url.startswith("http://") and not is_loopback(url) and not as_json:
        print_note("Note: the address of the old account begins with http://, so its key travels unencrypted.")
    return url


def read_key() -> str:
    """Their key: from the environment, or typed without being shown. Raises `typer.BadParameter` if nobody can."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key:
        return key
    if not is_asked():
        raise typer.BadParameter("nobody can be asked here; set it to a key of the account", param_hint=KEY_VARIABLE)
    try:
        return getpass("Key of the OpenAI account (it is not shown): ").strip()
    except EOFError:
        raise typer.Abort from None


def _bring(osora: Osora, importer: Importer, chosen: list[dict[str, Any]], wait: bool, as_json: bool) -> list[Outcome]:
    """All that can be done for each job; whatever ends it early, what was done is shown."""
    outcomes: dict[str, Outcome] = {}
    try:
        # A job that goes on from another is younger than that.
        for one in chosen:
            outcomes[one["id"]] = importer.bring(one)
        while wait and _await_next(osora, list(outcomes.values()), as_json):
            for one in chosen:
                if outcomes[one["id"]].is_going:
                    outcomes[one["id"]] = importer.bring(one)
    except KeyboardInterrupt:
        advice = "the jobs go on; run it again to set the names"
        print_error("Stopped", advice, as_json, code="interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        show_outcomes(list(outcomes.values()), as_json)
    return list(outcomes.values())


def _await_next(osora: Osora, outcomes: list[Outcome], as_json: bool) -> bool:
    """Waits until one more job has ended; whether there was one."""
    going = next((one for one in outcomes if one.is_going and one.job), None)
    if going is None:
        return False
    assert going.job is not None
    if as_json:
        for _ in osora.jobs.events(going.job):
            pass
    else:
        say(f"Waiting for {going.job}. Ctrl-C stops the waiting, not the job.")
        watch(osora, going.job, console())
    return True
