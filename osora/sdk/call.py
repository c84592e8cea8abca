"""What a method of the SDK asks for: a description that the sync and the async client carry out alike.

A method is written once. It returns a `Call`, or it is a generator that yields several things to do, one after the
other, and is sent what came of each (`Steps`).
"""

import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

T = TypeVar("T")

Sink: TypeAlias = Callable[[bytes], object]


def decoded(response: httpx.Response) -> Any:
    """The JSON of an answer. Raises ValueError if it is none."""
    return response.json()


def nothing(_: httpx.Response) -> None:
    """What answers a call that is about its effect."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A multipart form: its fields, and its one file (the field's name, the file's name, its stream)."""

    fields: Mapping[str, str]
    file: tuple[str, str, Any]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    `form` is asked anew for each attempt. `accept` are statuses beside 2xx that are answers as well. `into` is told of
    the answer's head, again for each attempt, and gives what the pieces of the body go to. With `only_head` the body of
    a good answer stays unread. A call that is not
    `repeatable` is not sent again where the first one may have been carried out.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T] = decoded
    json: Any = None
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    form: Callable[[], Form] | None = None
    timeout: httpx.Timeout | None = None
    accept: tuple[int, ...] = ()
    into: Callable[[httpx.Response], Sink] | None = None
    only_head: bool = False
    repeatable: bool = True
    retries: bool = True


@dataclass(frozen=True)
class Work:
    """Something to do on this machine that takes its time: the async client has a thread do it."""

    do: Callable[[], Any]


@dataclass(frozen=True)
class Each:
    """Each item of a stream, as it comes, for a function."""

    stream: Any  # a `Lazy` of osora.sdk.endpoint, which comes after this module
    then: Callable[[Any], object]


Steps: TypeAlias = Generator[Call[Any] | Work | Each, Any, T]


def path(template: str, *values: str) -> str:
    """A path with an id or a model's name in each `{}` (a name's `:` stays, its `/` must not split the path)."""
    return template.format(*(quote(value, safe=":", errors="replace") for value in values))


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None: what is left out, the service chooses."""
    return {name: value for name, value in values.items() if value is not None}


def new_key() -> str:
    return f"sdk-{uuid.uuid4()}"


def once(key: str | None) -> dict[str, str]:
    """The header by which the service carries out a call once, however often it is sent: the caller's, or one of ours
    for our own retries."""
    return {"idempotency-key": key or new_key()}
