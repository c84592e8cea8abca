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


class Bars(Element, component="bars.js"):
    """Stacked bars, one for each name. `series`: each with `name`, `colour` (a variable of the style) and `values`."""

    def __init__(self, names: Sequence[str], series: Sequence[dict[str, Any]], label: str, unit: str) -> None:
        super().__init__()
        self._props["names"] = list(names)
        self._props["series"] = list(series)
        self._props["label"] = label
        self._props["unit"] = unit
