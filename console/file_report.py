"""What is known of a training file, shown: what is wrong with which line, how long its rows are, what is learned."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from console.layout import heading, panel
from console.tables import Cell, plain_table
from console.words import count, human_bytes
from osora.errors import OsoraAPIError
from osora.schemas import File, Problem

_MOST_PROBLEMS = 100
_MOST_LINES = 8


def refused(error: OsoraAPIError, filename: str) -> None:
    """Why a file is not taken: each bad place with its line, and what would be right."""
    with panel("", "problem"):
        heading(f"{filename} cannot be used", 2)
        with ui.element("div").props("role=alert"):
            ui.label(error.message).classes("problem-message")
            if error.next_action:
                ui.label(f"Next: {error.next_action}").classes("muted")
        problems = error.problems or _only(error)
        if problems:
            rows: list[list[Cell]] = [_problem(problem) for problem in problems[:_MOST_PROBLEMS]]
            plain_table(("line", "field", "what is wrong", "what to do"), rows, "Bad rows", right=(0,))
        if (more := error.problem_count - len(problems)) > 0:
            ui.label(f"and {more:,} more").classes("muted")


def report(file: File, told: Mapping[str, Any], base: str | None) -> None:
    """A usable file: its warnings, and its rows in tokens of a base."""
    facts = (file["filename"], count(told.get("rows") or 0, "row"), told.get("format"), human_bytes(file["bytes"]))
    ui.label(" · ".join(str(fact) for fact in facts if fact)).classes("file-line")
    tokens = (told.get("tokens") or {}).get(base or "") or {}
    _warnings([*(told.get("notes") or []), *(told.get("warnings") or []), *(tokens.get("warnings") or [])])
    if "unavailable" in tokens:
        ui.label(f"Tokens of {base}: {tokens['unavailable']}").classes("muted")
    elif tokens:
        _tokens(tokens, base or "")


def _only(error: OsoraAPIError) -> list[Problem]:
    if error.line is None:
        return []
    return [
        {"line": error.line, "field": error.field, "problem": error.message, "next_action": error.next_action or ""}
    ]


def _problem(problem: Problem) -> list[Cell]:
    line, value, words = problem.get("line"), problem.get("value"), problem.get("problem", "")
    shown = words if not value or value in words else f"{words} ({value})"
    return ["" if line is None else f"{line:,}", problem.get("field") or "", shown, problem.get("next_action") or ""]


def _warnings(warnings: Sequence[Mapping[str, Any]]) -> None:
    if not warnings:
        return
    with ui.element("ul").classes("warnings"):
        for warning in warnings:
            with ui.element("li"):
                ui.label(f"{warning['message']}{_lines(warning)}")
                if next_action := warning.get("next_action"):
                    ui.label(f"Next: {next_action}").classes("muted")


def _lines(warning: Mapping[str, Any]) -> str:
    lines = warning.get("lines") or []
    if not lines:
        return ""
    more = ", …" if warning.get("count", 0) > len(lines[:_MOST_LINES]) else ""
    return f" (line{'s' * (len(lines) > 1)} {', '.join(map(str, lines[:_MOST_LINES]))}{more})"


def _tokens(tokens: Mapping[str, Any], base: str) -> None:
    about = "" if tokens["counted"] == tokens["rows"] else "about "
    ui.label(
        f"In tokens of {base}: {about}{tokens['tokens']:,} in an epoch, of which {about}{tokens['trained_tokens']:,} "
        f"are learned. The longest row may have {tokens['limit']:,}."
    ).classes("muted")
    _overlong(tokens)
    with ui.element("div").classes("columns"):
        with ui.element("div"):
            heading("Length of rows", 3)
            _histogram(tokens["histogram"], tokens["limit"])
        with ui.element("div"):
            heading("What is learned", 3)
            ui.label("Rows as they are trained on; the marked text is what the model learns to say.").classes("muted")
            for sample in tokens["samples"]:
                _sample(sample)


def _overlong(tokens: Mapping[str, Any]) -> None:
    refused = tokens.get("refused") or []
    if refused:
        rows: list[list[Cell]] = [
            [f"{row['line']:,}", row["problem"], row.get("next_action") or ""] for row in refused[:_MOST_PROBLEMS]
        ]
        plain_table(("line", "what is wrong", "what to do"), rows, "Rows that this base cannot learn from", right=(0,))
    if tokens["rows_over"]:
        longest = ", ".join(f"line {row['line']:,} ({row['tokens']:,})" for row in tokens["over"][:_MOST_LINES])
        told = f"{count(tokens['rows_over'], 'row')} too long: {longest}. Choose below what becomes of them."
        ui.label(told).classes("warn")


def _histogram(bins: Sequence[Mapping[str, int]], limit: int) -> None:
    """Bars with their numbers in words beside them."""
    most = max((bin["rows"] for bin in bins), default=1)
    with ui.element("table").classes("histogram").props('aria-label="Rows by their number of tokens"'):
        with ui.element("thead"), ui.element("tr"):
            for head in ("tokens", "", "rows"):
                with ui.element("th").props("scope=col"):
                    ui.label(head)
        with ui.element("tbody"):
            for bin in bins:
                _bin(bin, most, is_over=bin["from"] > limit)


def _bin(bin: Mapping[str, int], most: int, *, is_over: bool) -> None:
    with ui.element("tr"):
        with ui.element("td").classes("number"):
            ui.label(f"{bin['from']:,} to {bin['to']:,}")
        with ui.element("td").classes("bar-cell"):
            share = 100 * bin["rows"] / max(most, 1)
            ui.element("div").classes("bar-of over" if is_over else "bar-of").style(f"width: {share:.1f}%")
        with ui.element("td").classes("number"):
            ui.label(f"{bin['rows']:,}")


def _sample(sample: Mapping[str, Any]) -> None:
    for side, words in (("segments", ""), ("rejected", ", the other answer")):
        if sample.get(side) is None:
            continue
        ui.label(f"line {sample['line']}{words}").classes("muted small")
        with ui.element("pre").classes("rendered").props('tabindex=0 aria-label="A row as it is trained on"'):
            for segment in sample[side]:
                with ui.element("mark" if segment["trained"] else "span"):
                    # White space and control tokens count: they are shown as they are.
                    ui.label(segment["text"]).classes("inline")
