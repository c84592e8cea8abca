"""What is known of a training file: what was converted, what it is warned of, and what it is in a base's tokens."""

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.bases.known import base_paths
from api.files.measuring import measured
from api.services import Services
from osora_data.measures import Measure
from registry.errors import InvalidRequest
from registry.files import TRAINING_PURPOSE
from registry.models import File


class Note(BaseModel):
    """What was accepted and ignored, or converted."""

    message: str
    count: int
    lines: Annotated[list[int], Field(description="The first few.")]


class Warned(BaseModel):
    """What may be wrong with a file that can be trained on."""

    code: str
    count: Annotated[int, Field(description="Rows of which it is true.")]
    message: str
    next_action: str
    lines: Annotated[list[int], Field(description="The first few.")]


class OverlongRow(BaseModel):
    """A row over the limit."""

    line: int
    row: Annotated[int, Field(description="Its number; several rows of an array may begin on one line.")]
    tokens: int


class RefusedRow(BaseModel):
    """A row that the base cannot be trained on."""

    line: int
    row: int
    problem: str
    next_action: str | None


class Bin(BaseModel):
    """Rows of so many tokens, both ends included."""

    model_config = ConfigDict(populate_by_name=True)

    from_: Annotated[int, Field(alias="from")]
    to: int
    rows: int


class Segment(BaseModel):
    """A piece of a row as it is trained on."""

    text: str
    trained: Annotated[bool, Field(description="Whether the loss counts its tokens.")]


class Sample(BaseModel):
    """A row as it is trained on, control tokens and all. Long texts lose their middle."""

    line: int
    segments: list[Segment]
    rejected: Annotated[list[Segment] | None, Field(description="The other answer's, of a preference.")] = None


class Tokens(BaseModel):
    """A file in the tokens of a base. Estimates where `counted` is less than `rows`."""

    limit: Annotated[int, Field(description="Tokens of the longest row that is trained on.")]
    rows: int
    counted: int
    rows_over: int
    over: Annotated[list[OverlongRow], Field(description="The first 100 rows over the limit.")]
    complete: Annotated[bool, Field(description="Whether all rows that may be over the limit were counted.")]
    rows_refused: int
    refused: Annotated[list[RefusedRow], Field(description="The first 100 that the base cannot be trained on.")]
    tokens: int
    trained_tokens: Annotated[int, Field(description="Those that the loss counts, in one epoch.")]
    histogram: list[Bin]
    samples: list[Sample]
    warnings: list[Warned]


class NotMeasured(BaseModel):
    """Why there are no counts, or not yet."""

    unavailable: str


class FileReport(BaseModel):
    """A training file's report."""

    object: Literal["file.report"] = "file.report"
    file_id: str
    container: str | None
    format: str | None
    rows: int | None
    bytes: int
    notes: list[Note]
    warnings: list[Warned]
    tokens: Annotated[dict[str, Tokens | NotMeasured], Field(description="By base.")]


async def report_of(services: Services, file: File, base: str | None) -> FileReport:
    """The report of a file of the caller's own, in the tokens of `base`, or of all bases on offer.

    Raises InvalidRequest for a file that is not for training, and for a base that is not on offer.
    """
    if file.purpose != TRAINING_PURPOSE:
        raise InvalidRequest(
            f"file {file.id!r} was made for {file.purpose!r}: there is a report of training files only",
            param="file_id",
            next_action="read its content",
        )
    offered = await base_paths(services)
    if base is not None and base not in offered:
        raise InvalidRequest(
            f"base {base!r} is not on offer here, only {', '.join(offered)}",
            param="base",
            code="model_not_found",
            next_action="name one that is",
        )
    asked = offered if base is None else [base]
    found = await asyncio.gather(*(measured(services, file, name) for name in asked))
    kept: dict[str, Any] = file.report or {}
    return FileReport(
        file_id=file.id,
        container=kept.get("container"),
        format=file.format,
        rows=file.rows,
        bytes=file.bytes,
        notes=kept.get("notes", []),
        warnings=kept.get("warnings", []),
        tokens=dict(zip(asked, map(_shown, found), strict=True)),
    )


def _shown(found: Measure | str) -> Tokens | NotMeasured:
    if isinstance(found, str):
        return NotMeasured(unavailable=found)
    return Tokens.model_validate(found, from_attributes=True)
