"""What the service says of itself."""

from typing import Annotated

from pydantic import BaseModel, Field


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Check(BaseModel):
    """One thing that the service stands on."""

    ok: bool
    needed: bool
    """Whether the service is of no use without it. Without a broker, jobs are accepted and start later."""
    detail: str


class Readiness(BaseModel):
    """Everything that the service stands on."""

    ready: bool
    checks: Annotated[dict[str, Check], Field(description="database, store, disk, inference, broker")]
