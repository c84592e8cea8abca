"""Requests for any operation, made from the examples of the document with ids of an estate in them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from sqlalchemy import select

from registry.context import Registry
from registry.models import Base, OutboxMessage
from tests.support.archives import archive
from tests.support.estate import COMMON, Estate, kind_of
from tests.support.operations import Operation, Place

_FILES = {"file": b'{"prompt": "a", "completion": "b"}\n', "data": b"x"}
_BOUNDARY = "a-boundary"
QUERY, FORM = "?", "form"


@dataclass(frozen=True)
class Call:
    """A request that an operation would take."""

    operation: Operation
    path: dict[str, str]
    query: dict[str, str]
    body: Any = None
    """JSON; the fields of a form, where the operation takes one."""
    accept: str = "*/*"

    @property
    def url(self) -> str:
        path = self.operation.path.format(**{name: quote(value, safe="/:") for name, value in self.path.items()})
        return f"{path}?{urlencode(self.query)}" if self.query else path

    @property
    def content(self) -> tuple[str, bytes]:
        """Media type and body."""
        if "multipart/form-data" in self.operation.content:
            return f"multipart/form-data; boundary={_BOUNDARY}", _form(self.body)
        return "application/json", b"" if self.body is None else json.dumps(self.body).encode()


def calls(operation: Operation, estate: Estate) -> list[Call]:
    """What the document's examples come to with the estate's own ids: one that asks for events, too, if there are such.

    Every example in a path must be of a kind that an estate has, or nobody's: else nobody would try a foreign one.
    """
    bodies = [estate.instead_of(body) for body in operation.bodies()]
    if (form := operation.content.get("multipart/form-data")) is not None:
        examples = {name: field["examples"][0] for name, field in form["properties"].items() if "examples" in field}
        bodies = [estate.instead_of(examples)]
        if operation.path.endswith("/adapters"):
            bodies[0]["file"] = archive()
    query = {
        parameter["name"]: estate.instead_of(parameter["schema"]["examples"][0])
        for parameter in operation.parameters("query")
        if parameter.get("required")
    }
    found = [Call(operation, path, query, body) for path in _paths(operation, estate) for body in bodies]
    if operation.streams:
        stream = replace(found[0], accept="text/event-stream")
        found.append(replace(stream, body={**stream.body, "stream": True}) if stream.body else stream)
    return found


def _paths(operation: Operation, estate: Estate) -> list[dict[str, str]]:
    """The path's parameters: with the first example of each, with the second, and so on."""
    examples = {}
    for parameter in operation.parameters("path"):
        given = parameter["schema"]["examples"]
        for example in given:
            assert kind_of(example) or example in COMMON, f"{operation}: {example!r} is of no kind that an estate has"
        examples[parameter["name"]] = [estate.instead_of(example) for example in given]
    longest = max((len(given) for given in examples.values()), default=1)
    found = [
        {name: given[min(number, len(given) - 1)] for name, given in examples.items()} for number in range(longest)
    ]
    return [path for number, path in enumerate(found) if path not in found[:number]]


def with_path(call: Call, text: str) -> Iterator[Call]:
    """The call with this text as each parameter of its path."""
    for name in call.path:
        yield replace(call, path={**call.path, name: text})


def free_places(operation: Operation) -> list[Place]:
    """Where else it takes a text: QUERY and a name, FORM and a name, or a place in its JSON."""
    query = [
        (QUERY, parameter["name"])
        for parameter in operation.parameters("query")
        if re.search(r'"type": "string"(?!, "enum")', json.dumps(parameter["schema"]))
    ]
    form = operation.content.get("multipart/form-data", {}).get("properties", {})
    return [*query, *((FORM, name) for name in form), *operation.places()]


def with_text(call: Call, place: Place, text: str) -> Call:
    """The call with this text there."""
    match place:
        case ("?", str() as name):
            return replace(call, query={**call.query, name: text})
        case ("form", str() as name):
            return replace(call, body={**call.body, name: text})
    return replace(call, body=call.operation.with_text(call.body, place, text))


def _form(fields: dict[str, Any]) -> bytes:
    parts = []
    for name, value in fields.items():
        is_file = name in _FILES
        file = '; filename="a.jsonl"' if is_file else ""
        content = value if isinstance(value, bytes) else _FILES[name] if is_file else str(value).encode()
        head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


Rows = dict[tuple[Any, ...], dict[str, Any]]

# What a request of anybody's may change without being let in: when a key was last seen, what is left of a limit.
_BOOKKEEPING = {"last_used_at", "last_used_on", "seen_at"}


def rows(registry: Registry) -> dict[str, Rows]:
    """Every row of every table but the outbox, by its key."""
    found = {}
    with registry.reading() as session:
        for table in Base.metadata.sorted_tables:
            if table.name == OutboxMessage.__tablename__:
                continue  # a message that was sent is gone
            keys = [column.name for column in table.primary_key]
            found[table.name] = {
                tuple(row[name] for name in keys): {
                    name: value for name, value in row.items() if name not in _BOOKKEEPING
                }
                for row in session.execute(select(table)).mappings()
            }
    return found
