"""Everything a job needs to go on exactly where it was, in a few megabytes of safetensors."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from osora_core.errors import CorruptArtifact

FORMAT = "osora-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """A job after `step` steps: its bank row and Adam moments, [P] each.

    The data order is a function of seed and epoch and the schedule one of the step, so the step is cursor, schedule
    and random state in one. `spec_hash` ties the checkpoint to the spec, data and basis it belongs to.
    """

    step: int
    trained_tokens: int
    spec_hash: str
    values: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def to_bytes(self) -> bytes:
        state = {
            "format": FORMAT,
            "step": self.step,
            "trained_tokens": self.trained_tokens,
            "spec_hash": self.spec_hash,
        }
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in ("values", "first", "second")}
        return save(tensors, metadata={"state": json.dumps(state)})

    @classmethod
    def from_bytes(cls, data: bytes, sha256: str) -> "Checkpoint":
        """Read a checkpoint whose bytes must hash to `sha256`; raises CorruptArtifact otherwise."""
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256:
            raise CorruptArtifact(f"the checkpoint's bytes hash to {actual}, expected {sha256}")
        try:
            tensors = load(data)
            header_length = int.from_bytes(data[:8], "little")
            metadata = json.loads(data[8 : 8 + header_length])["__metadata__"]
            state = json.loads(metadata["state"])
            if state.pop("format") != FORMAT:
                raise CorruptArtifact("the checkpoint was written by another version of Osora")
            return cls(**state, **dict[str, Any](tensors))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"the checkpoint cannot be parsed: {error}") from error
