"""The adapters."""

from console.adapter_facts import short_name
from console.layout import empty, heading
from console.rows import LongTable, Row, column
from console.view import View, page
from console.words import age, human_bytes
from osora.schemas import Adapter

_COLUMNS = [
    column("name", "Name", kind="link"),
    column("base", "Base"),
    column("kind", "Kind", wide=True),
    column("rank", "Rank", right=True, wide=True),
    column("size", "Size", right=True),
    column("age", "Age", right=True, wide=True),
    column("model", "Called by", wide=True),
]
_EMPTY = "No adapters yet. A job that succeeds makes one: a few hundred kilobytes that change how a base answers."


@page("/adapters", "Adapters", nav=20, icon="tune")
async def show(view: View) -> None:
    """The list, newest first."""
    heading("Adapters")
    table = LongTable(view, view.osora.adapters.list(), _COLUMNS, _row, "Adapters, newest first")
    if not await table.show():
        empty(_EMPTY, ("Start a job", "/jobs/new"))


def _row(adapter: Adapter) -> Row:
    return {
        "id": adapter["id"],
        "href": f"/adapters/{adapter['id']}",
        "name": short_name(adapter["name"]),
        "model": adapter["name"],
        "base": adapter["base"],
        "kind": "LoRA, brought" if adapter.get("type") == "lora" else "OSoRA",
        "rank": adapter.get("rank"),
        "size": human_bytes(adapter["bytes"]),
        "age": age(adapter["created_at"]),
    }
