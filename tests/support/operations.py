"""Every operation that an app answers, read from the app itself: what is added later is found without being named."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant

from api.deps import require_internal

Schema = dict[str, Any]
# Where in a JSON body something is: names of fields, 0 for an item of a list, KEY for the name of a free field.
Place = tuple[str | int, ...]
KEY = "<key>"
VALUE = "<value>"


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """As in the document, without convertors."""
    scope: str | None
    """The scope that its dependencies ask for."""
    is_internal: bool
    """Whether it lets in our own processes only."""
    endpoint: Callable[..., Any]
    document: Schema = field(repr=False, default_factory=dict)
    """Its part of the OpenAPI document; empty for one that is not listed."""
    components: dict[str, Schema] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def content(self) -> dict[str, Schema]:
        """The schemas of its body by media type."""
        found = self.document.get("requestBody", {}).get("content", {})
        return {kind: self.resolve(about["schema"]) for kind, about in found.items()}

    def parameters(self, where: str) -> list[Schema]:
        """Those in the path, the query or the headers."""
        return [about for about in self.document.get("parameters", []) if about["in"] == where]

    @property
    def streams(self) -> bool:
        """Whether it may answer with events."""
        return "text/event-stream" in self.document["responses"].get("200", {}).get("content", {})

    def resolve(self, schema: Schema) -> Schema:
        """What a reference refers to."""
        return self.components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def bodies(self) -> list[Any]:
        """The examples of its JSON body."""
        schema = self.content.get("application/json")
        return [None] if schema is None else schema["examples"]

    def places(self) -> list[Place]:
        """Where its JSON body takes any text."""
        schema = self.content.get("application/json")
        return [] if schema is None else list(dict.fromkeys(self._places(schema, (), ())))

    def _places(self, schema: Schema, place: Place, seen: tuple[str, ...]) -> Iterator[Place]:
        if "$ref" in schema:
            if schema["$ref"] in seen:
                return
            seen = (*seen, schema["$ref"])
        schema = self.resolve(schema)
        for branch in _branches(schema):
            yield from self._places(branch, place, seen)
        is_free = not schema.keys() & {"type", "anyOf", "oneOf", "allOf", "enum", "const", "properties"}
        if is_free or (schema.get("type") == "string" and not schema.keys() & {"enum", "const"}):
            yield place
        for name, field_ in schema.get("properties", {}).items():
            yield from self._places(field_, (*place, name), seen)
        if "items" in schema:
            yield from self._places(schema["items"], (*place, 0), seen)
        if isinstance(others := schema.get("additionalProperties"), dict):
            yield (*place, KEY)
            yield from self._places(others, (*place, VALUE), seen)

    def with_text(self, body: Any, place: Place, text: str) -> Any:
        """The body with this text there. What must stand around it is as small as the schema lets it be."""
        return self._put(self.content["application/json"], body, place, text)

    def _put(self, schema: Schema, value: Any, place: Place, text: str) -> Any:
        if not place:
            return text
        schema = self._branch_for(schema, place)
        step, rest = place[0], place[1:]
        if isinstance(step, int):
            first = value[0] if isinstance(value, list) and value else None
            return [self._put(schema["items"], first, rest, text)]
        if step == KEY:
            return {text: self._smallest(schema["additionalProperties"])}
        if step == VALUE:
            return {"name": self._put(schema["additionalProperties"], None, rest, text)}
        whole = value if isinstance(value, dict) else self._smallest(schema)
        return {**whole, step: self._put(schema["properties"][step], whole.get(step), rest, text)}

    def _branch_for(self, schema: Schema, place: Place) -> Schema:
        """The alternative of the schema in which there is such a place."""
        schema = self.resolve(schema)
        for branch in _branches(schema):
            if place in set(self._places(branch, (), ())):
                return self._branch_for(branch, place)
        return schema

    def _smallest(self, schema: Schema) -> Any:
        schema = self.resolve(schema)
        for known in ("const", "default"):
            if known in schema:
                return schema[known]
        for known in ("examples", "enum"):
            if schema.get(known):
                return schema[known][0]
        for branch in _branches(schema):
            return self._smallest(branch)
        match schema.get("type"):
            case "object":
                return {name: self._smallest(schema["properties"][name]) for name in schema.get("required", [])}
            case "array":
                return [self._smallest(schema["items"])] * schema.get("minItems", 0)
            case "integer" | "number":
                return max(schema.get("minimum", 1), 1)
            case "boolean":
                return False
        return "x" * max(schema.get("minLength", 1), 1)


def _branches(schema: Schema) -> list[Schema]:
    return [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]


def operations(app: FastAPI) -> list[Operation]:
    """All of them, those that the document does not list too."""
    document = app.openapi()
    components = document["components"]["schemas"]
    found = []
    for route in _routes(app):
        calls = list(_calls(route.dependant))
        scopes = {scope for call in calls if (scope := _scope(call)) is not None}
        assert len(scopes) <= 1, f"{route.path} asks for several scopes: {scopes}"
        for method in sorted(route.methods):
            listed = document["paths"].get(route.path_format, {}).get(method.lower(), {})
            assert bool(listed) == route.include_in_schema, f"{method} {route.path_format}"
            found.append(
                Operation(
                    method,
                    route.path_format,
                    next(iter(scopes), None),
                    require_internal in calls,
                    route.endpoint,
                    listed,
                    components,
                )
            )
    in_document = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert in_document <= {(operation.method, operation.path) for operation in found}
    return found


def _routes(app: FastAPI) -> Iterator[Any]:
    """Routes with their whole paths. What is no HTTP route (a mount, a socket) would need a test of its own."""
    for route in app.routes:
        included = getattr(route, "effective_route_contexts", None)
        for each in [route] if included is None else included():
            inner = getattr(each, "starlette_route", None) or each
            assert hasattr(inner, "methods"), f"{inner} is no HTTP route"
            yield each if getattr(each, "dependant", None) is not None else _Plain(inner)


class _Plain:
    """A route of Starlette's, which has no dependencies."""

    def __init__(self, route: Any) -> None:
        self.path_format = self.path = route.path_format
        self.methods = {*route.methods} - {"HEAD"}
        self.endpoint = route.endpoint
        self.include_in_schema = False
        self.dependant: Dependant | None = None


def _calls(dependant: Dependant | None) -> Iterator[Callable[..., Any]]:
    for inner in dependant.dependencies if dependant is not None else ():
        if inner.call is not None:
            yield inner.call
        yield from _calls(inner)


def _scope(call: Callable[..., Any]) -> str | None:
    """The scope that `api.deps._with_scope` was given."""
    if getattr(call, "__module__", "") != "api.deps" or not inspect.isfunction(call):
        return None
    scope: str | None = inspect.getclosurevars(call).nonlocals.get("scope")
    return scope
