"""The installation, as its operator sees it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from registry.fleet import Crew, Fleet


class LoadOut(BaseModel):
    """What an inference server does for one base."""

    model_config = ConfigDict(extra="ignore")

    base: str
    running: int
    """Requests that have a row of the batch."""
    waiting: int
    rows: int
    tokens_per_second: Annotated[float, Field(description="Written, over the last ten seconds.")]
    adapters: int
    """In the bank, in use or kept for when they are asked again."""
    adapter_slots: int
    lora_ranks: int
    """Of the plain LoRAs in their bank."""
    lora_capacity: int


class ServerOut(BaseModel):
    """An inference server."""

    number: int
    """Its place among the configured ones: where they are is not said."""
    answers: bool
    bases: list[LoadOut]


class WorkerOut(BaseModel):
    """A worker process."""

    id: str
    live: bool
    bases: list[str]
    slots: int
    """Jobs of one base that it trains at once."""
    jobs: int
    tokens_per_second: Annotated[float, Field(description="As each of its jobs said last, in all.")]
    started_at: int
    seen_at: int

    @classmethod
    def of(cls, crew: Crew) -> Self:
        """The worker as an operator sees it."""
        worker = crew.worker
        return cls(
            id=worker.id,
            live=crew.is_live,
            bases=worker.bases,
            slots=worker.slots,
            jobs=crew.jobs,
            tokens_per_second=round(crew.tokens_per_second, 1),
            started_at=worker.started_at,
            seen_at=int(worker.seen_at),
        )


class QueueOut(BaseModel):
    """All tenants' jobs of a base that have not ended."""

    base: str
    validating_files: int
    queued: int
    running: int
    paused: int


class SystemOut(BaseModel):
    """What runs, what waits, and how fast it goes."""

    object: Literal["system"] = "system"
    inference: list[ServerOut]
    workers: Annotated[list[WorkerOut], Field(description="Those heard of within a day, the oldest first.")]
    queue: list[QueueOut]

    @classmethod
    def of(cls, fleet: Fleet, loads: list[list[dict[str, Any]] | None]) -> Self:
        """Of what the registry and the inference servers say."""
        return cls(
            inference=[
                ServerOut(number=number, answers=load is not None, bases=[LoadOut(**one) for one in load or ()])
                for number, load in enumerate(loads, 1)
            ],
            workers=[WorkerOut.of(crew) for crew in fleet.crews],
            queue=[QueueOut(base=base, **counts) for base, counts in fleet.queue.items()],
        )
