"""One prompt to a base and to what was made of it, side by side."""

from typing import Annotated

from fastapi import Query

from console.answer_column import STRONGEST
from console.choosing import choice
from console.layout import empty, heading
from console.playground_table import Table
from console.view import View, page


@page("/playground", "Playground", nav=30, icon="forum")
async def show(view: View, model: Annotated[tuple[str, ...], Query()] = (), strength: float = 1.0) -> None:
    """`model`: adapters, checkpoints or aliases that are chosen from the start."""
    heading("Playground")
    found = await choice(view.osora)
    if not found.bases:
        empty("No base is on offer here. An operator adds one: osora bases add NAME.")
        return
    await Table(view, found).show(model, min(max(strength, 0.0), STRONGEST))
