"""Adapters, as clients see them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas import PageQuery, QueryModel
from registry.models import Adapter

ADAPTER_EXAMPLE: JsonDict = {
    "id": "adp-01k9v4c7rqsabcdefghjkmnpqrs",
    "object": "adapter",
    "name": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
    "version": 1,
    "base": "osora-tiny",
    "job_id": "ftjob-01k9v3x2b8mabcdefghjkmnpqrs",
    "step": 225,
    "rank": 64,
    "parameters": 36864,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "bytes": 152480,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "base_fingerprint": "6b51d431df5d7f14…",
    "basis_fingerprint": "e3b98a4da31a127d…",
    "created_at": 1762300420,
}


class AdaptersQuery(PageQuery):
    """Which adapters."""

    base: Annotated[str | None, Field(description="Only adapters of this base.")] = None


class DownloadQuery(QueryModel):
    """In which form."""

    format: Annotated[
        Literal["osora", "lora", "merged"],
        Field(
            description="`osora`: as it was trained, a PEFT directory. `lora`: the same as a LoRA, for vLLM and PEFT "
            "without this package. `merged`: the base with the adapter folded in, a checkpoint for transformers."
        ),
    ] = "osora"


class AdapterOut(BaseModel):
    """A trained adapter: call it by its id or its name."""

    model_config = ConfigDict(json_schema_extra={"examples": [ADAPTER_EXAMPLE]})

    id: str
    object: Literal["adapter"] = "adapter"
    name: str
    version: int
    base: str
    job_id: str
    step: Annotated[int | None, Field(description="The step of its job whose state it is.")]
    rank: int
    parameters: int
    target_modules: list[str]
    bytes: int
    sha256: str
    base_fingerprint: str
    basis_fingerprint: str
    created_at: int

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        """The adapter's row as a client sees it."""
        return cls(
            id=adapter.id,
            name=adapter.name,
            version=adapter.version,
            base=adapter.base,
            job_id=adapter.job_id,
            step=adapter.step,
            rank=adapter.rank,
            parameters=adapter.parameters,
            target_modules=adapter.target_modules,
            bytes=adapter.bytes,
            sha256=adapter.sha256,
            base_fingerprint=adapter.base_fingerprint,
            basis_fingerprint=adapter.basis_fingerprint,
            created_at=adapter.created_at,
        )
