"""Cells of a table, which are strings where a row of JSON has lists and objects."""

from typing import Any

from osora_data.formats.columns import COLUMNS
from osora_data.problems import RowError
from osora_data.strict_json import parse_text
from osora_data.words import quoted

_LISTS = ("messages", "conversations", "preferred_output", "non_preferred_output")
"""Columns that are JSON in any case."""
_MESSAGES_OR_TEXT = ("prompt", "completion", "chosen", "rejected")
_JSON_OR_NOTHING = ("tools", "functions", "history", "parallel_tool_calls")


def read_cells(cells: dict[str, Any]) -> dict[str, Any]:
    """A row of JSON. An empty cell of a column that a row may lack is none. Raises RowError."""
    row = {}
    for name, cell in cells.items():
        value = _read(name, cell, cells) if isinstance(cell, str) else cell
        if value is not None:
            row[name] = value
    return row


def _read(name: str, cell: str, cells: dict[str, Any]) -> Any:
    if name in _LISTS and not cell.strip() and any(cells.get(other) for other in COLUMNS if other != name):
        return None  # of a row in another format, as what else it has will tell
    if name in _LISTS or (name == "input" and "preferred_output" in cells):
        return _json(name, cell)
    if name in _MESSAGES_OR_TEXT:
        return _messages_or_text(cell)
    if name in _JSON_OR_NOTHING:
        return _json(name, cell.lower() if name == "parallel_tool_calls" else cell) if cell.strip() else None
    return None if cell == "" and name in ("system", "input") else cell


def _json(name: str, cell: str) -> Any:
    try:
        return parse_text(cell)
    except RowError as error:
        if cell.lstrip()[:2] in ("[{", "{'") and "'" in cell[:3]:
            problem = "is a list as Python prints it, and not JSON"
            raise RowError(problem, "write it with json.dumps", field=name, value=quoted(cell)) from error
        error.field, error.line = name, 0
        raise


def _messages_or_text(cell: str) -> Any:
    if not cell.lstrip().startswith("[{"):
        return cell
    try:
        value = parse_text(cell)
    except RowError:
        return cell  # a text that begins so
    is_conversation = all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    return value if is_conversation else cell
