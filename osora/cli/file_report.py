"""A training file's report, for people."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from osora.cli.output import console, human_bytes, is_utf8, plain, say, sentences

_SHOWN = 20
_BAR = 40
_STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TRAINED = "bold green"


def print_report(report: Mapping[str, Any], name: str) -> None:
    """A report as the service gives it, or as `osora files check` makes it of a file named `name`."""
    form = report["format"] or "no known format"
    told = (f"{_count(report['rows'] or 0, 'row')} ({form})", report["container"], human_bytes(report["bytes"]))
    say(f"{name}: {', '.join(filter(None, told))}")
    problems = report.get("problems", [])
    _print_list(map(_problem, problems[:_SHOWN]), "problem", "red")
    if (left := report.get("problem_count", 0) - len(problems[:_SHOWN])) > 0:
        say(f"         and {left:,} more")
    _print_list(map(_note, report["notes"]), "note", "cyan")
    _print_list(map(_warning, report["warnings"]), "warning", "yellow")
    for base, tokens in report["tokens"].items():
        say("")
        if "unavailable" in tokens:
            say(f"Tokens of {base}: {sentences(tokens['unavailable'], tokens.get('next_action'))}")
        else:
            _print_tokens(base, tokens)


def _print_list(lines: Iterable[str], word: str, style: str) -> None:
    for line in lines:
        text = Text(f"{word:<8} ", style=style)
        text.append(plain(line), style="default")
        console().print(text, soft_wrap=True)


def _problem(problem: dict[str, Any]) -> str:
    where = "" if problem["line"] is None else f"line {problem['line']}: "
    field = "" if problem["field"] is None else f"`{problem['field']}` "
    value = problem["value"]
    value = "" if value is None or value in problem["problem"] else f" ({value})"
    return sentences(f"{where}{field}{problem['problem']}{value}", problem["next_action"])


def _note(note: dict[str, Any]) -> str:
    return f"{note['message']}: {_count(note['count'], 'time')}{_lines(note['lines'], note['count'])}"


def _warning(warning: dict[str, Any]) -> str:
    return sentences(warning["message"] + _lines(warning["lines"], warning["count"]), warning["next_action"])


def _lines(lines: Sequence[int], count: int) -> str:
    if not lines:
        return ""
    return f" [line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}{', …' if count > len(lines) else ''}]"


def _print_tokens(base: str, tokens: dict[str, Any]) -> None:
    about = "" if tokens["counted"] == tokens["rows"] else "about "
    say(
        f"In tokens of {base}: {about}{tokens['tokens']:,} an epoch, {about}{tokens['trained_tokens']:,} of them "
        f"trained; a row has at most {tokens['limit']:,}"
    )
    if about:
        say(f"Estimated from {tokens['counted']:,} of {tokens['rows']:,} rows; of long rows, all are counted")
    refused = [f"line {row['line']}: {sentences(row['problem'], row['next_action'])}" for row in tokens["refused"]]
    _print_list(refused[:_SHOWN], "refused", "red")
    if (left := tokens["rows_refused"] - len(refused[:_SHOWN])) > 0:
        say(f"         and {left:,} more")
    if tokens["rows_over"]:
        _print_list([_overlong(tokens)], "too long", "red")
    _print_list(map(_warning, tokens["warnings"]), "warning", "yellow")
    _print_histogram(tokens["histogram"], tokens["limit"])
    if tokens["samples"]:
        say("")
        say("As it is trained on, with what is learned " + ("in colour" if console().color_system else "in [[ ]]"))
    for sample in tokens["samples"]:
        _print_sample(sample)


def _overlong(tokens: dict[str, Any]) -> str:
    lengths = ", ".join(f"line {row['line']} ({row['tokens']:,})" for row in tokens["over"][:5])
    more = ", …" if tokens["rows_over"] > 5 else ""
    at_least = "" if tokens["complete"] else "at least "
    told = f"{at_least}{_count(tokens['rows_over'], 'row')}: {lengths}{more}"
    return sentences(
        told, "train with --overlong truncate or --overlong drop, or write a copy by `osora files fix --overlong drop`"
    )


def _print_histogram(bins: Sequence[dict[str, int]], limit: int) -> None:
    most = max((bin["rows"] for bin in bins), default=0)
    labels = [f"{bin['from']:,} to {bin['to']:,}" for bin in bins]
    width = max(map(len, labels), default=0)
    block = "█" if is_utf8(sys.stdout) else "#"
    for bin, label in zip(bins, labels, strict=True):
        length = -(-_BAR * bin["rows"] // most) if most else 0
        text = Text(f"  {label:>{width}}  ")
        text.append(block * length, style="red" if bin["from"] > limit else "green")
        text.append(f" {bin['rows']:,}")
        console().print(text, soft_wrap=True)


def _print_sample(sample: dict[str, Any]) -> None:
    for side in ("segments", "rejected"):
        if sample.get(side) is None:
            continue
        say(f"  line {sample['line']}" + (", the other answer" if side == "rejected" else ""))
        screen = console()
        text = Text()
        for segment in sample[side]:
            shown = _visible(segment["text"])
            if segment["trained"] and not screen.color_system:
                shown = f"[[{shown}]]"
            text.append(shown, style=_TRAINED if segment["trained"] else "dim")
        for line in text.split("\n", allow_blank=False):
            screen.print(Text("    ") + line, soft_wrap=True)


def _visible(text: str) -> str:
    """Without what would steer a terminal: whoever made a file does not get to."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
