"""JSON as its standard has it: Python's own reader takes more, and says nothing of what it drops.

`parse` is for rows: orjson reads them, and what it does not read, or reads with a loss, is read again by Python's
reader, which is slow and can say what is wrong and where.
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from osora_data.problems import RowError
from osora_data.words import quoted, short

DEEPEST = 200
"""Levels of lists and objects in a row."""

_ONE_EACH_LINE = "put one complete JSON object on each line"
_PLAIN = "write plain strings and small numbers"
_CLOSERS = "}]"
_LONGEST_PATH = 100
"""Characters: it is made for every value."""
_MAY_HAVE_NUMBERS = re.compile(rb'"(?:parameters|arguments)"')
"""Keys under which numbers are kept: everywhere else they are refused or ignored."""
_LONG_INTEGER = re.compile(rb"[0-9]{19}")


class DuplicateKeyError(ValueError):
    """An object has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class ConstantError(ValueError):
    """NaN or an infinity, which Python's reader takes and JSON does not have."""


def loads(text: str, *, repeats: bool = False) -> Any:
    """The value. With `repeats`, an object may have a key twice, and its last value counts.

    Raises DuplicateKeyError, ConstantError, and what `json.loads` raises.
    """
    read = None if repeats else _refuse_duplicates
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=read)


def parse(raw: bytes) -> Any:
    """The value of a row: all of its strings are Unicode, its numbers finite. Raises RowError."""
    try:
        value = orjson.loads(raw)
        # A key that comes twice is one key afterwards: there are fewer quotes than before. Where a quote is written as
        # an escape the numbers tell nothing.
        exact = orjson.dumps(value).count(b'"') == raw.count(b'"') and b"\\u0022" not in raw
        # Of longer integers orjson makes floats.
        if exact and not (_MAY_HAVE_NUMBERS.search(raw) and _LONG_INTEGER.search(raw)):
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    return _parse_slowly(raw)


def parse_text(text: str) -> Any:
    """The same of a string. Raises RowError."""
    return parse(text.encode("utf-8", "surrogatepass"))


def _parse_slowly(raw: bytes) -> Any:
    try:
        text = raw.rstrip(b" \t\r\n").decode("utf-8")  # the line's own end begins no other
        value = loads(text)
    except UnicodeDecodeError as error:
        line, column = raw.count(b"\n", 0, error.start), error.start - raw.rfind(b"\n", 0, error.start)
        raise RowError(f"byte {column} is not UTF-8", "save the file as UTF-8", line=line) from error
    except json.JSONDecodeError as error:
        raise _explain(error) from error
    except DuplicateKeyError as error:
        raise RowError(
            f"the key {quoted(error.key)} comes twice in one object",
            "keep one of the two: JSON readers drop the other without a word",
            field=short(error.key),
        ) from error
    except ConstantError as error:
        raise RowError(f"is not usable JSON: {error} is not a JSON value", _PLAIN, value=str(error)) from error
    except RecursionError as error:
        raise RowError("is not usable JSON: it is nested too deeply", _PLAIN) from error
    except ValueError as error:  # of Python's own: it reads no integers that are longer
        problem = f"is not usable JSON: it has a number of more than {sys.get_int_max_str_digits()} digits"
        raise RowError(problem, _PLAIN) from error
    if not _is_plain(value):
        _check_tree(value)
    return value


def _explain(error: json.JSONDecodeError) -> RowError:
    text, position = error.doc, error.pos
    before = text[max(0, position - 100) : position].rstrip()
    where = f"at character {error.colno}"
    line = error.lineno - 1
    if position >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        problem = f"is not JSON: it ends in the middle ({error.msg.removesuffix(' at')} {where})"
        return RowError(problem, _ONE_EACH_LINE, line=line)
    character = text[position]
    if "trailing comma" in error.msg or (character in _CLOSERS and before.endswith(",")):
        closer = next((c for c in text[position:] if c in _CLOSERS), character)
        return RowError(f"is not JSON: there is a comma before `{closer}` {where}", "remove that comma", line=line)
    if character == "\0":
        return RowError(f"has a NUL byte {where}", "remove it: it is no character of a text", line=line)
    if character == "'":
        problem = f"is not JSON: a string begins with ' {where}"
        return RowError(problem, 'put strings into double quotes, as json.dumps does: "…"', line=line)
    if error.msg == "Extra data":
        what = f"there is more behind the object, {where}"
        return RowError(f"is not JSON: {what}", "put each object on a line of its own", line=line)
    problem = f"is not JSON: {error.msg.removesuffix(' at')} {where}"
    return RowError(problem, _ONE_EACH_LINE, line=line, value=quoted(re.split(r"[\r\n]", text[position:])[0]))


def _is_plain(value: Any) -> bool:
    """What `_check_tree` asks, without saying where, in a tenth of the time."""
    level = [value]
    for _ in range(DEEPEST + 1):
        if not all(is_unicode(item) for item in level if type(item) is str):
            return False
        pairs = [pair for item in level if type(item) is dict for pair in item.items()]
        level = [inner for item in level if type(item) is list for inner in item]
        level += [inner for pair in pairs for inner in pair]
        if not level:
            return True
    return False


def _check_tree(value: Any) -> None:
    for inner, path, depth in _walk(value):
        if depth > DEEPEST:
            raise RowError("is not usable JSON: it is nested too deeply", _PLAIN)
        if isinstance(inner, str) and not is_unicode(inner):
            problem = "has half of a surrogate pair (\\ud800 to \\udfff)"
            raise RowError(problem, "write the character itself", field=short(path) or None, value=quoted(inner))


def _walk(value: Any) -> Iterator[tuple[Any, str, int]]:
    """All that is in a value, itself and keys too, each with its path and depth; of millions no list is made."""
    levels: list[Iterator[tuple[Any, str, int]]] = [iter([(value, "", 0)])]
    while levels:
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
            continue
        yield found
        inner, path, depth = found
        if isinstance(inner, dict):
            levels.append(_of_object(inner, path, depth))
        elif isinstance(inner, list):
            levels.append(_of_list(inner, path, depth))


def _of_object(value: dict[str, Any], path: str, depth: int) -> Iterator[tuple[Any, str, int]]:
    for key, item in value.items():
        name = key[:_LONGEST_PATH]
        place = path if len(path) > _LONGEST_PATH else f"{path}.{name}" if path else name
        yield key, place, depth
        yield item, place, depth + 1


def _of_list(value: list[Any], path: str, depth: int) -> Iterator[tuple[Any, str, int]]:
    for index, item in enumerate(value):
        yield item, f"{path}[{index}]", depth + 1


def is_unicode(text: str) -> bool:
    """Whether a text has nothing but characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ConstantError(name)


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ConstantError(short(number))
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return row
