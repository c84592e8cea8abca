"""`osora compare`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from osora.cli.names import completing
from osora.cli.output import ExitCode, Json, print_json, print_note, print_table, say
from osora.migrate.comparing import Comparison, Model, compare
from osora.migrate.prompts import read_prompts
from osora.migrate.text import one_line
from osora.sdk import Osora

_LONGEST = 200


def compare_answers(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")],
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An adapter, an alias or a base: who is to be judged.",
            autocompletion=completing("model"),
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Compare with this model's answers, not the file's.",
            autocompletion=completing("model"),
        ),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="So many disagreements, the least alike first.")] = 5,
    at_least: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Fail where fewer answers than this share are the same."),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer, at most.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.")] = 8,
    as_json: Json = False,
) -> None:
    """Show a model's answers beside those in FILE: how many are the same, and which are not.

    FILE is as for training, such as a held-out file; its last messages (or completions) are the old answers.
    Exit code 1: some prompts got no answer, or fewer than --at-least are the same.
    """
    total = 0
    for prompt in read_prompts(file):  # a line that is wrong is found before anybody is asked
        total += 1
        if prompt.answer is None and against is None:
            hint = f"line {prompt.line} has no answer to compare with; name a model for the old ones with --against"
            raise typer.BadParameter(hint, param_hint="FILE")
    if total == 0:
        raise typer.BadParameter("has no prompts", param_hint="FILE")
    with Osora() as osora, _progress(as_json) as progress:
        new = Model(osora, model, max_tokens)
        old = None if against is None else Model(osora, against, max_tokens)
        task = progress.add_task("", total=total)
        found = compare(
            read_prompts(file),
            new,
            old,
            concurrency=concurrency,
            show=show,
            on_answer=lambda: progress.advance(task),
        )
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found, against or str(file), model)
    if found.failed or (at_least is not None and found.share(found.same) < at_least):
        raise typer.Exit(ExitCode.FAILED)


def _progress(as_json: bool) -> Progress:
    columns = (TextColumn("asking"), BarColumn(bar_width=24), MofNCompleteColumn())
    return Progress(*columns, console=Console(stderr=True), disable=as_json, transient=True)


def _as_json(found: Comparison) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "same": found.share(found.same),
        "exact_match": found.share(found.exact),
        "token_f1": found.share(found.f1_sum),
        "json_rows": found.json_rows,
        "json_field_match": found.field_match,
        "json_fields": {
            name: {"count": count, "match": found.same_fields[name] / count}
            for name, count in sorted(found.fields.items())
        },
        "answered_by": dict(found.answered_by),
        "failed": {str(line): reason for line, reason in sorted(found.failed.items())},
        "disagreements": [asdict(one) for one in found.disagreements],
    }


def _show(found: Comparison, old: str, new: str) -> None:
    say(f"{found.rows} answers: old by {old}, new by {', '.join(found.answered_by) or new}.")
    figures = [
        ("the same", f"{found.share(found.same):.1%}", f"{found.same} of {found.rows}: as text, or as JSON"),
        ("exact match", f"{found.share(found.exact):.1%}", "as text, but for white space around it"),
        ("token F1", f"{found.share(found.f1_sum):.3f}", "the mean over the answers"),
    ]
    if found.field_match is not None:
        figures.append(("JSON fields", f"{found.field_match:.1%}", f"in {found.json_rows} answers that are JSON"))
    print_table(("figure", "value", ""), figures, "")
    if found.fields:
        say("")
        fields = [
            (one_line(name), f"{found.same_fields[name] / count:.1%}", count)
            for name, count in sorted(found.fields.items())
        ]
        print_table(("JSON field", "the same", "in answers"), fields, "")
    for one in found.disagreements:
        say(f"\nLine {one.line}, token F1 {one.f1:.2f}")
        for name, text in (("prompt", one.prompt), ("old", one.old), ("new", one.new)):
            say(f"  {name:6}  {one_line(text, _LONGEST)}")
    for line, reason in sorted(found.failed.items()):
        print_note(f"Line {line} got no answer: {reason}")
