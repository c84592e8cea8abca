"""Which jobs `osora import openai` brings, and what it shows of them."""

from collections.abc import Sequence
from typing import Any

import typer

from osora.cli.asking import is_asked
from osora.cli.output import print_json, print_table, say, sentences, when
from osora.errors import OsoraUsageError
from osora.migrate.importing import Outcome
from osora.migrate.text import one_line


def choose(
    jobs: list[dict[str, Any]], every: bool, ids: Sequence[str], models: Sequence[str], dry_run: bool, as_json: bool
) -> list[dict[str, Any]]:
    """The jobs to bring, oldest first: by the options, or by asking.

    Raises OsoraUsageError for an id or a name that fits none, and `typer.BadParameter` where nobody can be asked.
    """
    oldest_first = sorted(jobs, key=lambda job: job.get("created_at") or 0)
    if every and (ids or models):
        raise typer.BadParameter("it leaves nothing to --job and --model", param_hint="--all")
    if ids or models:
        return _named(oldest_first, ids, models)
    succeeded = [job for job in oldest_first if job.get("status") == "succeeded"]
    if every or dry_run or not succeeded:
        return succeeded
    if as_json or not is_asked():
        raise typer.BadParameter("name them with --job or --model, or say --all", param_hint="--job")
    rows = [
        (
            number,
            *(one_line(job.get(key), 200) for key in ("id", "fine_tuned_model", "model")),
            when(job.get("created_at")),
        )
        for number, job in enumerate(succeeded, 1)
    ]
    print_table(("number", "job", "model", "base", "created"), rows, "")
    answer = typer.prompt("Which? Numbers (1,3-5), or all")
    return succeeded if answer.strip() == "all" else [succeeded[index] for index in numbers(answer, len(succeeded))]


def numbers(text: str, count: int) -> list[int]:
    """Places from 0 on, of `1,3-5`. Raises OsoraUsageError for what names none of `count`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        try:
            numbers = range(int(first), int(last or first) + 1)
        except ValueError:
            numbers = range(0)
        if not numbers or numbers[0] < 1 or numbers[-1] > count:
            raise OsoraUsageError(f"{part.strip()!r} is no number from 1 to {count}", "answer like 1,3-5, or all")
        found.update(number - 1 for number in numbers)
    return sorted(found)


def _named(jobs: list[dict[str, Any]], ids: Sequence[str], models: Sequence[str]) -> list[dict[str, Any]]:
    for name, keys in [*((one, ("id",)) for one in ids), *((one, ("fine_tuned_model", "model")) for one in models)]:
        if not any(job.get(key) == name for job in jobs for key in keys):
            raise OsoraUsageError(
                f"{name!r} is no job of that account, and no model of one", "list them with --dry-run"
            )
    # A base of theirs stands for what came of it; a job that is named is brought, or it is said why not.
    return [
        job
        for job in jobs
        if job["id"] in ids
        or job.get("fine_tuned_model") in models
        or (job.get("model") in models and job.get("status") == "succeeded")
    ]


def show_plan(outcomes: list[Outcome], as_json: bool) -> None:
    """What would be done."""
    if as_json:
        _print_json(outcomes)
        return
    rows = [(*_there(one), one.status, _reason(one) or _files(one)) for one in outcomes]
    print_table(("job there", "model there", "here", ""), rows, "No jobs there have succeeded.")
    say("")
    _show_differences(outcomes)


def show_outcomes(outcomes: list[Outcome], as_json: bool) -> None:
    """What was done, and what is to be done next."""
    if as_json:
        _print_json(outcomes)
        return
    _show_differences(outcomes)
    rows = [(*_there(one), one.status, one.job, one.adapter, _reason(one)) for one in outcomes]
    print_table(("job there", "model there", "here", "job", "adapter", ""), rows, "No job was brought.")
    named, going = sum(one.alias in ("set", "kept") for one in outcomes), sum(one.is_going for one in outcomes)
    left = sum(one.is_wrong for one in outcomes)
    say(f"{named} of {len(outcomes)} answer here to their old name, {going} under way, {left} not brought.")
    if going:
        say("Next: run it again when they have ended, or with --wait.")


def _show_differences(outcomes: list[Outcome]) -> None:
    rows = [(one.source, each.field, each.there, each.here) for one in outcomes for each in one.differences]
    if rows:
        print_table(("job there", "what differs", "there", "here"), rows, "")
        say("")


def _print_json(outcomes: list[Outcome]) -> None:
    print_json({"jobs": [one.as_json() for one in outcomes]})


def _there(one: Outcome) -> tuple[str, str]:
    return one_line(one.source, 200), one_line(one.old_name or "", 200)


def _reason(one: Outcome) -> str:
    return one_line(sentences(one.reason, one.next_action), 1000) if one.reason else ""


def _files(one: Outcome) -> str:
    return one_line(" ".join(file for file in (one.training_file, one.validation_file) if file), 400)
