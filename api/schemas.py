"""What the resources' schemas share: strict requests, pages, and the one shape of an error."""

from difflib import get_close_matches
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Item = TypeVar("Item")


class _KnownFieldsOnly(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        # extra="forbid" alone refuses too, but cannot say what would have been right.
        if isinstance(data, dict):
            for name in data:
                if name not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_field", "is not known here", {"field": name, "hint": cls._hint(name)}
                    )
        return data

    @classmethod
    def _hint(cls, name: str) -> str:
        close = get_close_matches(name, cls.model_fields, n=1)
        known = ", ".join(cls.model_fields)
        return f"did you mean {close[0]!r}?" if close else f"known here are {known}"


class RequestModel(_KnownFieldsOnly):
    """A JSON body or a part of one: unknown fields are errors, and a number is not a string."""

    model_config = ConfigDict(strict=True)


class QueryModel(_KnownFieldsOnly):
    """Query parameters; unknown ones are errors."""


class PageQuery(QueryModel):
    """Which part of a list."""

    after: Annotated[str | None, Field(description="Id of the last item of the page before.")] = None
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


class ErrorDetail(BaseModel):
    """What went wrong, for people (`message`, `next_action`) and for programs (the rest)."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    line: Annotated[int | None, Field(description="1-based line of an uploaded file.")] = None
    field: Annotated[str | None, Field(description="Path of the field inside that line.")] = None
    next_action: str | None = None


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
    429: "Too much is waiting already; `retry-after` says when to try again.",
    503: "Something that is needed for this is down.",
}
