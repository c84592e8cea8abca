"""The adapters."""

import time
from typing import Any

from nicegui import ui

from console.adapter_facts import short_name, size
from console.layout import empty, heading
from console.long_table import LongTable
from console.view import View, page
from osora.schemas import Adapter

_NAME = """
<q-td :props="props"><a :href="'/adapters/' + props.row.id" class="row-link">{{ props.row.name }}</a>
<div class="mono small muted wide-only">{{ props.row.model }}</div></q-td>
"""
_COLUMNS: list[dict[str, Any]] = [
    {"name": "name", "label": "Name"},
    {"name": "base", "label": "Base"},
    {"name": "kind", "label": "Kind", "wide": True},
    {"name": "rank", "label": "Rank", "align": "right", "wide": True},
    {"name": "size", "label": "Size", "align": "right"},
    {"name": "age", "label": "Made", "align": "right", "wide": True},
]


@page("/adapters", "Adapters", nav=20, icon="tune")
async def show(view: View) -> None:
    """The list, newest first."""
    with ui.element("div").classes("title-row"):
        heading("Adapters")
    table = LongTable(view, view.osora.adapters.list(), _COLUMNS, _row, "Adapters, newest first")
    if not await table.show():
        empty("No adapters yet. A job that succeeds makes one: a few hundred kilobytes that change how a base answers.",
              ("Start a job", "/jobs/new"))  # fmt: skip
    elif table.table is not None:
        table.table.add_slot("body-cell-name", _NAME)


def _row(adapter: Adapter) -> dict[str, Any]:
    return {
        "id": adapter["id"],
        "name": short_name(adapter["name"]),
        "model": adapter["name"],
        "base": adapter["base"],
        "kind": "LoRA, brought" if adapter.get("type") == "lora" else "OSoRA",
        "rank": adapter.get("rank"),
        "size": size(adapter["bytes"]),
        "age": ago(adapter["created_at"]),
    }


def ago(moment: int) -> str:
    """`3 min ago`."""
    seconds = max(0, time.time() - moment)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"
