"""What the resources' schemas share: strict requests, pages, and the one shape of an error."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Item = TypeVar("Item")

_LONGEST_NAME = 512


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul", "should not have a NUL character")
    return text


# PostgreSQL keeps none in a text, and of a JSON column with one somewhere in it, it could search none of the rows.
NO_NUL = AfterValidator(_without_nul)

Name = Annotated[str, Field(max_length=_LONGEST_NAME), NO_NUL]
"""An id or a name: of a base, an adapter, a file, a module."""


_SUFFIX = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def _part_of_a_name(suffix: str) -> str:
    if not re.fullmatch(_SUFFIX, suffix):
        raise ValueError("should have letters, digits, '.', '_' and '-' only, the first a letter or digit")
    return suffix


Suffix = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        description="Becomes a part of the model's name.",
        json_schema_extra={"pattern": f"^{_SUFFIX}$"},
    ),
    AfterValidator(_part_of_a_name),
]


@dataclass(frozen=True)
class AtMost:
    """So many items of a list or an object, counted before the first is looked at.

    Pydantic's own `max_length` counts those that are good, and describes each one that is not: a list of a million
    wrong items takes it minutes.
    """

    length: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._counted, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        described["maxProperties" if described["type"] == "object" else "maxItems"] = self.length
        return described

    def _counted(self, value: Any) -> Any:
        if isinstance(value, (list, dict)) and len(value) > self.length:
            raise PydanticCustomError(
                "too_many",
                "should have at most {most} items, not {found}",
                {"most": self.length, "found": len(value)},
            )
        return value


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64), NO_NUL], Annotated[str, Field(max_length=512), NO_NUL]], AtMost(16)
]
"""A client's own notes on a thing, with OpenAI's limits."""


class _KnownFieldsOnly(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    unsupported: ClassVar[Mapping[str, str]] = {}
    """What OpenAI's API takes and this one does not, each with why or what to do instead. A null, a false or an empty
    list of it is harmless: some clients write all fields, and send back all that they were answered."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        # extra="forbid" alone refuses too, but cannot say what would have been right.
        if not isinstance(data, dict):
            return data
        known = cls._by_name()
        unknown = {name: value for name, value in data.items() if name not in known}
        for name, value in unknown.items():
            if name not in cls.unsupported:
                raise PydanticCustomError(
                    "unknown_field", "is not known here", {"field": name, "hint": cls._hint(name)}
                )
            if value is not None and value is not False and value != []:
                reason = cls.unsupported[name]
                raise PydanticCustomError("unsupported_field", "is not supported here", {"field": name, "hint": reason})
        return {name: value for name, value in data.items() if name not in unknown}

    @classmethod
    def _hint(cls, name: str) -> str:
        names = cls._by_name()
        close = get_close_matches(name[:_LONGEST_NAME], names, n=1)
        return f"did you mean {close[0]!r}?" if close else f"known here are {', '.join(names)}"

    @classmethod
    def _by_name(cls) -> dict[str, FieldInfo]:
        return {field.alias or name: field for name, field in cls.model_fields.items()}


class RequestModel(_KnownFieldsOnly):
    """A JSON body or a part of one: unknown fields are errors, and a number is not a string.

    A null is what leaving the field out is, where that may be done: some clients write all fields that they know.
    """

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        optional = {name for name, field in cls._by_name().items() if not field.is_required()}
        return {name: value for name, value in data.items() if value is not None or name not in optional}


class QueryModel(_KnownFieldsOnly):
    """Query parameters; unknown ones are errors."""


class PageQuery(QueryModel):
    """Which part of a list."""

    after: Annotated[Name | None, Field(description="Id of the last item of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=100, description="Items on a page.")] = 20
    order: Annotated[Literal["asc", "desc"], Field(description="By time of creation.")] = "desc"


class ListPage(BaseModel, Generic[Item]):
    """A page of a list; the next one is `?after=<last_id>`."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[Any], has_more: bool) -> "ListPage[Item]":
        """The page with these items, each of which has an `id`."""
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class Deleted(BaseModel):
    """Says that something is gone."""

    id: str
    object: str
    deleted: Literal[True] = True


class FileProblem(BaseModel):
    """Something that is wrong with an uploaded file."""

    line: Annotated[int | None, Field(description="1-based; null where it is the file as a whole.")]
    field: Annotated[str | None, Field(description="Path of the field inside the row.")]
    value: Annotated[str | None, Field(description="The value as JSON, cut.")]
    problem: str
    next_action: str


class ErrorDetail(BaseModel):
    """What went wrong, for people (`message`, `next_action`) and for programs (the rest)."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    line: Annotated[int | None, Field(description="1-based line of an uploaded file.")] = None
    field: Annotated[str | None, Field(description="Path of the field inside that line.")] = None
    next_action: str | None = None
    problems: Annotated[
        list[FileProblem] | None, Field(description="The first 100 things that are wrong with an uploaded file.")
    ] = None
    problem_count: Annotated[int | None, Field(description="How many there are in all.")] = None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these statuses."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}


_MEANINGS = {
    400: "The request cannot be carried out as written.",
    401: "No API key, or an unknown one.",
    403: "The key lacks the scope.",
    404: "No such thing, or another tenant's.",
    409: "Not possible in the present state.",
    413: "The body is too large.",
    429: "Too much at once, or more than the tenant may; `retry-after` says when to try again, if that helps.",
    503: "Something that is needed for this is down.",
    507: "A disk of the service is full; nothing was changed.",
}
