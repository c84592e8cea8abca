"""How like two answers are."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

# Words, single characters of scripts that put no spaces between words, and single marks.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"  # Thai, Lao, kana, Han
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


@dataclass(frozen=True)
class Agreement:
    """Of a new answer with the old one.

    exact: the same text, but for white space around it. same: exact, or the same JSON. f1: of their tokens, in 0 to 1.
    fields: where the old one is JSON, whether each field of either has the same value in both; a field in a list is
    named `tags[]`.
    """

    exact: bool
    same: bool
    f1: float
    fields: list[tuple[str, bool]] | None


def agree(old: str, new: str) -> Agreement:
    """Compares two answers."""
    exact = old.strip() == new.strip()
    before, after = _parse(old), _parse(new)
    if not isinstance(before, dict | list):
        return Agreement(exact, exact, token_f1(old, new), None)
    fields = _fields(before, after)
    return Agreement(exact, exact or all(equal for _, equal in fields), token_f1(old, new), fields)


def token_f1(old: str, new: str) -> float:
    """The harmonic mean of precision and recall over tokens, as in SQuAD (Rajpurkar et al. 2016), articles kept."""
    before, after = (Counter(_TOKEN.findall(text.casefold())) for text in (old, new))
    if not before or not after:
        return float(before == after)
    common = (before & after).total()
    return 2 * common / (before.total() + after.total())


def _fields(before: Any, after: Any) -> list[tuple[str, bool]]:
    old, new = dict(_leaves(before, ())), dict(_leaves(after, ()))
    places = sorted(old.keys() | new.keys())
    return [(_name(place), place in old and place in new and _equal(old[place], new[place])) for place in places]


_Place = tuple[tuple[str, str], ...]


def _leaves(value: Any, place: _Place) -> list[tuple[_Place, Any]]:
    """Every value that is no object or list, and empty ones, with the keys and numbers that lead to it."""
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*place, ("key", key)))]
    if isinstance(value, list) and value:
        return [leaf for at, inner in enumerate(value) for leaf in _leaves(inner, (*place, ("index", f"{at:08}")))]
    return [(place, value)]


def _name(place: _Place) -> str:
    name = "".join("[]" if kind == "index" else f".{step}" for kind, step in place)
    return name.removeprefix(".") or "(the whole)"


def _equal(one: Any, other: Any) -> bool:
    """1 is 1.0, and neither is true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


class _NotJSON:
    """What a text that is no JSON has instead of a value: it has no fields, and is equal to nothing."""


_NOT_JSON = _NotJSON()


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON
