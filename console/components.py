"""Elements of our own, whose code in the browser lies beside this file."""

from collections.abc import Sequence
from typing import Any

from nicegui.element import Element


class Tokens(Element, component="tokens.js"):
    """A text whose every token shows on hover, focus or touch how likely it was, and what else there was."""

    def __init__(self, tokens: Sequence[dict[str, Any]], label: str) -> None:
        super().__init__()
        self._props["tokens"] = list(tokens)
        self._props["label"] = label


class Compared(Element, component="compared.js"):
    """Rows of a file and what two models said to them. `names`: of the models at "left" and "right"."""

    def __init__(self, names: dict[str, str], label: str) -> None:
        super().__init__()
        self._props["names"] = names
        self._props["label"] = label

    def show(self, rows: list[dict[str, Any]]) -> None:
        """These, in place of those before. `marks`: whether each model was right, None where that is not known."""
        self.run_method("show", rows)
