"""A file's rows asked of two models."""

from console.choosing import choice
from console.compare_board import Board
from console.layout import empty, heading
from console.view import View, page


@page("/compare", "Compare", nav=40, icon="compare_arrows")
async def show(view: View, left: str = "", right: str = "", file: str = "") -> None:
    """`left`, `right`, `file`: the models and the training file that are chosen from the start."""
    heading("Compare")
    found = await choice(view.osora)
    if not found.bases:
        empty("No base is on offer here. An operator adds one: osora bases add NAME.")
        return
    await Board(view, found).show(left, right, file)
