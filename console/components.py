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
