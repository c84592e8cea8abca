"""JSON bodies, read so that nothing in them is lost and nothing harmful gets past.

`json.loads` keeps the last of two equal keys without a word, lets half a surrogate pair, NaN and any depth in, and
says "Expecting value" of whatever it cannot read. What it lets in fails later, far from the field that it is in.
"""

import json
import math
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.routes import ThreadRoute
from api.services import Services
from api.validation import explain, path_of, shown
from registry.errors import InvalidRequest

MAX_DEPTH = 64
"""Lists and objects inside each other."""

MAX_VALUES = 100_000
"""Strings, numbers, lists and so on in one body: each costs a hundred times the bytes that it is written with."""

_SMALL_BYTES = 16 * 1024
# JSON's own escapes are the only way to write half a surrogate pair: UTF-8 has none.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_BEFORE_VALUES = (b",", b"[", b"{")

Path = tuple[str | int, ...]


class JsonRoute(ThreadRoute):
    """A route whose JSON body is read by `parse`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that knows how to read."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_JsonRequest(request, self))

        return handle_strictly


class _JsonRequest(Request):
    def __init__(self, request: Request, route: APIRoute) -> None:
        super().__init__(request.scope, request.receive)
        self._route = route

    async def json(self) -> Any:
        """FastAPI calls this for a body that is not empty, and raises what it raises as the cause of a 400."""
        body = await self.body()
        if len(body) <= _SMALL_BYTES:
            return parse(body)
        # A large one takes a while, in which others want the event loop, and the threads.
        services: Services = self.app.state.services
        return await services.large_bodies.run(self.state.principal.tenant_id, lambda: self._read(body))

    def _read(self, body: bytes) -> Any:
        """What FastAPI would make of the body's value: it takes what is made already as it is."""
        value = parse(body)
        field = self._route.body_field
        if field is None:
            return value
        read, findings = field.validate(value, {}, loc=("body",))
        if findings:
            raise explain(RequestValidationError(findings, body=value))
        return read


def parse(body: bytes) -> Any:
    """The body's value.

    Raises:
        InvalidRequest: it is not UTF-8, not JSON, too deep, or of too many values; or, and then it says where, a key is
            there twice, a text has half a surrogate pair, or a number is not finite.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is not UTF-8", "send the body as UTF-8") from None
    if _has_too_many(body):
        raise _refused((), f"has more than {MAX_VALUES} values", "send fewer at once")
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _not_json(_reason(error), "send one JSON object") from None
    except RecursionError:
        raise _too_deep(()) from None
    except ValueError:  # the one other that json raises: Python's limit on the digits of an integer
        raise _not_json("a number in it has thousands of digits", "send numbers that a computer can hold") from None
    _check(value, has_surrogates=_SURROGATE.search(body) is not None)
    return value


def _has_too_many(body: bytes) -> bool:
    """Whether it has over `MAX_VALUES`, before any is made: Python takes seconds to make a million."""
    if _count(body) <= MAX_VALUES:
        return False
    # Those inside texts separate nothing. Without escapes, every second piece between quotes is a text.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * MAX_VALUES + 2:  # a text is a value or the key of one
        return True
    return _count(b"".join(plain.split(b'"')[::2])) > MAX_VALUES


def _count(body: bytes) -> int:
    return sum(map(body.count, _BEFORE_VALUES))


class _Repeating(dict[str, Any]):
    """An object that named a key twice. It is refused once it is known where it is."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeating = _Repeating(found)
    repeating.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeating


def _reason(error: json.JSONDecodeError) -> str:
    what = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
    return f"{what} at character {error.pos}"


def _check(value: Any, *, has_surrogates: bool) -> None:
    """Looks at every value once, without recursion."""
    found: list[tuple[Any, Path]] = [(value, ())]
    while found:
        inner, path = found.pop()
        match inner:
            case dict() | list():
                if inner and len(path) >= MAX_DEPTH:
                    raise _too_deep(path)
                if isinstance(inner, dict):
                    _check_keys(inner, path, has_surrogates)
                found.extend([(item, (*path, key)) for key, item in _items(inner)][::-1])
            case float() if not math.isfinite(inner):
                raise _refused(path, f"is {shown(inner)}, which is not a number of JSON's", "send a finite number")
            case str() if has_surrogates and _is_broken(inner):
                raise _broken(path, inner)
            case _:
                continue


def _items(value: dict[str, Any] | list[Any]) -> Iterator[tuple[str | int, Any]]:
    yield from value.items() if isinstance(value, dict) else enumerate(value)


def _check_keys(value: dict[str, Any], path: Path, has_surrogates: bool) -> None:
    if isinstance(value, _Repeating):
        raise _refused((*path, value.key), "is there twice", "send it once: the other would be lost")
    if has_surrogates:
        for key in value:
            if _is_broken(key):
                raise _broken((*path, key), key)


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _broken(path: Path, text: str) -> InvalidRequest:
    return _refused(path, f"has half of a surrogate pair, which is no character: {shown(text)}", "send both halves")


def _too_deep(path: Path) -> InvalidRequest:
    return _refused(path[:1], f"is nested more than {MAX_DEPTH} levels deep", "send something flatter")


def _refused(path: Path, what: str, next_action: str) -> InvalidRequest:
    param = path_of(path)
    return InvalidRequest(f"{param or 'the body'} {what}", param=param, code="invalid_value", next_action=next_action)


def _not_json(reason: str, next_action: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not JSON: {reason}", code="invalid_json", next_action=next_action)
