"""Adapters, as clients see them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal, Self

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas import Name, PageQuery, QueryModel, RequestModel, Suffix
from registry.models import AdapterType
from registry.references import AdapterRef

ADAPTER_EXAMPLE: JsonDict = {
    "id": "adp-01k9v4c7rqsabcdefghjkmnpqrs",
    "object": "adapter",
    "name": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
    "version": 1,
    "type": "osora",
    "base": "osora-tiny",
    "job_id": "ftjob-01k9v3x2b8mabcdefghjkmnpqrs",
    "step": 225,
    "rank": 64,
    "mix": 0,
    "parameters": 36864,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "bytes": 152480,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "base_fingerprint": "6b51d431df5d7f14…",
    "basis_fingerprint": "e3b98a4da31a127d…",
    "created_at": 1762300420,
    "expires_at": None,
}


class AdaptersQuery(PageQuery):
    """Which adapters."""

    base: Annotated[Name | None, Field(description="Only adapters of this base.")] = None


class ImportForm(RequestModel):
    """The fields of the multipart form."""

    file: Annotated[
        UploadFile,
        Field(
            description="A ZIP with `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes them.",
            examples=["adapter.zip"],
        ),
    ]
    base: Annotated[
        Name | None, Field(description="The adapter's base; left out, the only one here.", examples=["osora-tiny"])
    ] = None
    suffix: Annotated[Suffix | None, Field(examples=["support"])] = None


class DownloadQuery(QueryModel):
    """In which form."""

    format: Annotated[
        Literal["osora", "lora", "merged", "gguf"] | None,
        Field(
            description="By default as it is. `osora`: as it was trained, a PEFT directory. "
            "`lora`: the same as a LoRA, for vLLM and PEFT "
            "without this package. `merged`: the base with the adapter folded in, a checkpoint for transformers. "
            "`gguf`: the same as one file for llama.cpp, with a Modelfile for Ollama and a README. "
            "A plain LoRA can be had as `lora`, as it came, as `merged` and as `gguf`."
        ),
    ] = None


class AdapterOut(BaseModel):
    """An adapter, or a checkpoint: call it by its id or its name."""

    model_config = ConfigDict(json_schema_extra={"examples": [ADAPTER_EXAMPLE]})

    id: str
    object: Literal["adapter"] = "adapter"
    name: str
    version: int
    type: Annotated[
        AdapterType, Field(description="`lora`: a plain LoRA that was brought here, with matrices of its own.")
    ]
    base: str
    job_id: Annotated[str | None, Field(description="Null for an adapter that was brought here.")]
    step: Annotated[int | None, Field(description="The step of its job whose state it is.")]
    rank: int
    mix: Annotated[int, Field(description="Size of its matrix C; 0 for one without.")]
    parameters: Annotated[int | None, Field(description="Null for a checkpoint.")]
    target_modules: Annotated[list[str] | None, Field(description="Null for a checkpoint.")]
    bytes: int
    sha256: str
    base_fingerprint: str
    basis_fingerprint: Annotated[str | None, Field(description="Null for a plain LoRA, which knows no basis.")]
    created_at: int
    expires_at: Annotated[int | None, Field(description="When it is old enough to be deleted. Null: it stays.")]

    @classmethod
    def of(cls, ref: AdapterRef, expires_at: int | None) -> Self:
        """What is referred to, as a client sees it: without where its bytes are."""
        shown = {name: value for name, value in asdict(ref).items() if name in cls.model_fields}
        return cls(**shown, expires_at=expires_at)


class ImportedOut(AdapterOut):
    """An adapter that was just brought, and what its owner should know."""

    warnings: list[str]

    @classmethod
    def imported(cls, ref: AdapterRef, expires_at: int | None, warnings: Sequence[str]) -> Self:
        """What was just published."""
        return cls(**AdapterOut.of(ref, expires_at).model_dump(), warnings=list(warnings))
