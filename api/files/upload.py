"""What an uploaded file is, in one piece or in parts."""

from pathlib import PureWindowsPath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from api.schemas import RequestModel
from registry.files import TRAINING_PURPOSE

_OF_OPENAI = ("assistants", "batch", "evals", "user_data", "vision")


def _for_training(purpose: object) -> object:
    if purpose in _OF_OPENAI:
        raise PydanticCustomError(
            "other_purpose", "no route here reads such files: use {ours}", {"ours": repr(TRAINING_PURPOSE)}
        )
    return purpose


Purpose = Annotated[Literal["fine-tune"], BeforeValidator(_for_training), Field(examples=["fine-tune"])]
"""What a file is uploaded for. OpenAI's other purposes are told why they are refused."""

ExpirySeconds = Annotated[int, Field(ge=3600, le=2_592_000, description="An hour to 30 days.")]
ExpiryAnchor = Annotated[Literal["created_at"], Field(description="What the seconds count from.")]


class ExpiresAfter(RequestModel):
    """How long a file lasts."""

    anchor: ExpiryAnchor
    seconds: ExpirySeconds


def base_name(filename: str) -> str:
    """A file's name by itself, or one of ours if it has none.

    Some browsers send a whole path; this class knows both kinds of slashes.
    """
    return PureWindowsPath(filename).name or "upload.jsonl"
