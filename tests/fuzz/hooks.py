"""What Schemathesis is told beside the document: objects that are there, and what the document leaves unsaid."""

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import schemathesis
from schemathesis.generation.modes import GenerationMode

from tests.support.archives import archive
from tests.support.estate import kind_of

_IDS: dict[str, str] = json.loads(os.environ["FUZZING_IDS"])
_OWN_KEY = os.environ["FUZZING_KEY_ID"]


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Lets each field of a body that may be left out be null as well.

    The API takes a null for what leaving the field out is (`api.schemas.RequestModel`), as some clients write all
    fields. The document does not say so: programs that write clients from it would make every field nullable.
    """
    components = raw_schema["components"]["schemas"]
    seen: set[str] = set()
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for schema in _objects(content["schema"], components, seen):
                    for name, field in schema["properties"].items():
                        if name not in schema.get("required", []):
                            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}


def _objects(schema: Any, components: dict[str, Any], seen: set[str]) -> Iterator[dict[str, Any]]:
    """The schemas of objects in this one, each once."""
    if isinstance(schema, list):
        for item in schema:
            yield from _objects(item, components, seen)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            yield from _objects(components[reference.rpartition("/")[2]], components, seen)
        for name, inner in [*schema.items()]:
            if name not in ("examples", "default", "const", "enum"):
                yield from _objects(inner, components, seen)
        if isinstance(schema.get("properties"), dict):
            yield schema


_calls = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Puts what is there in place of the document's examples, and never the key in use.

    Each request comes from an address of its own: whoever sends many wrong keys from one is told 429.
    """
    number = next(_calls)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    case.path_parameters = {
        name: _OWN_KEY[:-1] if value == _OWN_KEY else _real(value) for name, value in case.path_parameters.items()
    }
    if isinstance(case.body, (dict, list)):
        case.body = _real(case.body)
        is_good = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
        if is_good and case.operation.path == "/adapters" and "file" in case.body:
            case.body["file"] = archive()


def _real(value: Any) -> Any:
    match value:
        case str():
            return _IDS.get(kind_of(value) or "", value)
        case dict():
            return {_real(name): _real(inner) for name, inner in value.items()}
        case list():
            return [_real(inner) for inner in value]
    return value
