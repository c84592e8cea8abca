"""`osora import openai --record`."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from osora.cli.asking import is_asked
from osora.cli.output import ExitCode, duration, print_error, print_json, print_note, say
from osora.migrate.estimate import BYTES_A_TOKEN, Estimate, Prices
from osora.migrate.journal import Journal
from osora.migrate.openai_api import OpenAIClient
from osora.migrate.pace import Pace
from osora.migrate.prompts import Prompt, read_prompts
from osora.migrate.recording import Settings, fitting, record, shown_reasons, unanswered
from osora.migrate.splitting import Split, refuse_existing, write_split


@dataclass(frozen=True)
class Recording:
    """What `--record` was asked for."""

    file: Path
    settings: Settings
    folder: Path
    held_out_share: float
    seed: int
    per_minute: float
    prices: Prices | None
    confirmed: bool

    def prompts(self) -> Iterator[Prompt]:
        """Those of the file, read anew."""
        return fitting(read_prompts(self.file), self.settings)

    @property
    def training(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def held_out(self) -> Path:
        return self.folder / "held-out.jsonl"


def record_answers(url: str, key: str, asked: Recording, as_json: bool) -> None:
    """Records what is not recorded yet and writes both files. Raises `typer.Exit` with 1 if prompts were not taken."""
    settings = asked.settings
    refuse_existing(asked.training, asked.held_out)
    header = {"model": settings.model, "temperature": settings.temperature, "max_tokens": settings.max_tokens}
    client = OpenAIClient(url, key, Pace(asked.per_minute))
    for _ in asked.prompts():  # a line that is wrong is found before a folder is made or anything is paid for
        pass
    asked.folder.mkdir(parents=True, exist_ok=True)
    with closing(client), Journal(asked.folder / "journal.jsonl", header) as journal:
        estimate = Estimate()
        for prompt in unanswered(asked.prompts(), journal):
            estimate.add(prompt)
        rejected: dict[int, str] = {}
        if estimate.requests:
            _confirm(client.url, asked, estimate, as_json)
            rejected = _record(client, asked, journal, estimate.requests, as_json)
            if rejected and not as_json:
                print_note(f"{len(rejected)} prompts were not taken:")
                for line in shown_reasons(rejected):
                    print_note(f"  {line}")
        split = write_split(asked.prompts(), journal, asked.held_out_share, asked.seed, asked.training, asked.held_out)
    _show(asked, split, rejected, as_json)
    if rejected:
        raise typer.Exit(ExitCode.FAILED)


def _confirm(url: str, asked: Recording, estimate: Estimate, as_json: bool) -> None:
    """Shows what it will take, and lets the user say no. Raises `typer.BadParameter` where nobody can be asked."""
    if not as_json:
        for line in _costs(url, asked, estimate):
            say(line)
    if asked.confirmed:
        return
    if as_json or not is_asked():
        raise typer.BadParameter("nobody can be asked here; say it with --yes", param_hint="--yes")
    typer.confirm("Record?", abort=True)


def _costs(url: str, asked: Recording, estimate: Estimate) -> list[str]:
    max_tokens = asked.settings.max_tokens
    answers = estimate.answer_tokens(max_tokens)
    lines = [
        f"{estimate.requests} requests to {asked.settings.model} at {url}.",
        f"About {estimate.prompt_tokens} tokens of prompts and {answers} of answers: an estimate, "
        f"{BYTES_A_TOKEN} bytes a token.",
    ]
    if estimate.unknown < estimate.requests:
        lines.append("Answers are taken to be as long as those in the file.")
    if estimate.unknown:
        each = estimate.tokens_of_unknown(max_tokens)
        lines.append(f"For {estimate.unknown} the file has no answer; each is counted as {each} tokens.")
    if asked.prices:
        cost = asked.prices.cost(estimate.prompt_tokens, answers)
        prices = f"${asked.prices.prompt:g} and ${asked.prices.answer:g} a million tokens"
        lines.append(f"At {prices}, which you gave: {_dollars(cost)}.")
    else:
        lines.append(
            "What that costs is not known here: give the dollars for a million tokens, which OpenAI lists, with "
            "--price-in and --price-out."
        )
    time = duration(estimate.requests / asked.per_minute * 60)
    return [*lines, f"At {asked.per_minute:g} requests a minute: {time} or more (--requests-per-minute)."]


def _record(client: OpenAIClient, asked: Recording, journal: Journal, requests: int, as_json: bool) -> dict[int, str]:
    columns = (TextColumn("recording"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=as_json) as progress:
            task = progress.add_task("", total=requests)
            left = unanswered(asked.prompts(), journal)
            return record(client, asked.settings, left, journal, lambda: progress.advance(task))
    except KeyboardInterrupt:
        print_error("Stopped; what was answered is kept", "run it again to go on", as_json, code="interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _dollars(cost: float) -> str:
    return f"${cost:.2f}" if cost >= 0.01 or cost == 0 else "less than $0.01"


def _show(asked: Recording, split: Split, rejected: dict[int, str], as_json: bool) -> None:
    kept_out = {name: count for name, count in sorted(split.verdicts.items()) if name != "kept"}
    spent = asked.prices.cost(split.prompt_tokens, split.answer_tokens) if asked.prices else None
    if as_json:
        print_json(
            {
                "training_file": str(asked.training),
                "training_rows": split.training_rows,
                "held_out_file": str(asked.held_out) if split.held_out_rows else None,
                "held_out_rows": split.held_out_rows,
                "kept_out": kept_out,
                "rejected": {str(line): reason for line, reason in sorted(rejected.items())},
                "prompt_tokens": split.prompt_tokens,
                "answer_tokens": split.answer_tokens,
                "cost": spent,
            }
        )
        return
    say(f"{asked.training}: {split.training_rows} answers to learn from.")
    if split.held_out_rows:
        say(f"{asked.held_out}: {split.held_out_rows} answers held out.")
    if kept_out:
        say("Kept out, and in the journal: " + ", ".join(f"{count} {name}" for name, count in kept_out.items()) + ".")
    say(
        f"OpenAI counted {split.prompt_tokens} tokens of prompts and {split.answer_tokens} of answers"
        + (f": {_dollars(spent)}." if spent is not None else ".")
    )
    validation = f" --validation {asked.held_out}" if split.held_out_rows else ""
    say(f"Next: osora train {asked.training}{validation}")
