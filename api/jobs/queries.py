"""Which jobs, events and checkpoints."""

import re
from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.schemas import Metadata, PageQuery, QueryModel
from registry.jobs import probes
from registry.models import JobStatus

JobId = Annotated[str, Path(examples=["ftjob-01k9v3x2b8mabcdefghjkmnpqrs"])]

_METADATA = re.compile(r"metadata\[(.+)\]")
_EVENT_ID = r"^(ftevent-)?[0-9]{1,18}$"


class CreateQuery(QueryModel):
    """Whether a job is only to be told of."""

    dry_run: Annotated[
        bool,
        Field(description="Answer with what the job would be (its settings, tokens, steps, start, size); make none."),
    ] = False
    probe: Annotated[
        int | None,
        Field(
            ge=1,
            le=probes.MOST_STEPS,
            description="With `dry_run`: have a worker take the first so many steps, and answer with their losses. It "
            "waits for its turn, two minutes at most.",
        ),
    ] = None

    @model_validator(mode="after")
    def _probe_is_of_a_dry_run(self) -> Self:
        if self.probe is not None and not self.dry_run:
            raise PydanticCustomError("probe", "`probe` is for `dry_run=true`, which is not given")
        return self


class JobsQuery(PageQuery):
    """Which jobs."""

    status: Annotated[JobStatus | None, Field(description="Only jobs in this state.")] = None
    metadata: Annotated[
        Metadata | None,
        Field(description="Only jobs with this: `metadata[team]=support`. `metadata=null`: only jobs with none."),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _collect_metadata(cls, data: Any) -> Any:
        # OpenAI's clients write a mapping as one parameter for each key.
        pairs = {match[1]: data[name] for name in data if (match := _METADATA.fullmatch(name))}
        rest = {name: value for name, value in data.items() if not _METADATA.fullmatch(name)}
        if rest.get("metadata") == "null":
            rest["metadata"] = {}
        return {**rest, "metadata": pairs} if pairs else rest


class EventsQuery(QueryModel):
    """Which events, and whether to wait for more."""

    after: Annotated[str | None, Field(pattern=_EVENT_ID, description="Id of the last event seen: `ftevent-42`.")] = (
        None
    )
    limit: Annotated[int, Field(ge=1, le=1000, description="Events on a page; a stream has no limit.")] = 20
    order: Annotated[Literal["asc", "desc"], Field(description="A stream is always oldest first.")] = "desc"
    stream: Annotated[bool, Field(description="Server-sent events, as with `Accept: text/event-stream`.")] = False

    @property
    def after_id(self) -> int | None:
        """The number of the event in `after`."""
        return event_number(self.after)


class CheckpointsQuery(PageQuery):
    """Which checkpoints."""

    limit: Annotated[int, Field(ge=1, le=100, description="Checkpoints on a page.")] = 10


def event_number(shown: str | None) -> int | None:
    """42 for `ftevent-42` and for `42`; None for what is no event id, as a browser may send any."""
    if shown is None or not re.fullmatch(_EVENT_ID, shown):
        return None
    return int(shown.removeprefix("ftevent-"))
