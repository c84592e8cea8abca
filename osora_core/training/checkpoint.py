"""Everything a job needs to go on exactly where it was, in a few megabytes of safetensors."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from osora_core.errors import CorruptArtifact
from osora_core.training.curve import Curve

FORMAT = "osora-checkpoint-3"
_ROWS = ("values", "first", "second")


@dataclass(frozen=True)
class Checkpoint:
    """A job after `step` steps: its bank row and Adam moments, [P] each ([P + M] with a mix), and its curve so far.

    The data order is a function of seed and epoch and the schedule one of the step, so the step is cursor, schedule
    and random state in one. `spec` is the job's (`JobSpec.to_dict`): what was "auto" when the job began stays what it
    was then. `identity` ties the checkpoint to the spec, data and basis that it belongs to. `best` is the row at
    the lowest validation loss so far, where the job keeps that.
    """

    step: int
    trained_tokens: int
    identity: str
    spec: Mapping[str, Any]
    values: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    curve: Curve
    best: torch.Tensor | None = None
    ends_epoch: bool = False

    def to_bytes(self) -> bytes:
        state = {
            "format": FORMAT,
            "step": self.step,
            "trained_tokens": self.trained_tokens,
            "identity": self.identity,
            "spec": dict(self.spec),
            "evaluations": self.curve.evaluation_rows(),
            "ends_epoch": self.ends_epoch,
        }
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _ROWS}
        if self.best is not None:
            tensors["best"] = self.best
        tensors["losses"] = torch.tensor(self.curve.losses, dtype=torch.float64)
        tensors["accuracies"] = torch.tensor(self.curve.accuracies, dtype=torch.float64)
        return save(tensors, metadata={"state": json.dumps(state)})

    @classmethod
    def from_bytes(cls, data: bytes, sha256: str) -> Self:
        """Read a checkpoint whose bytes must hash to `sha256`; raises CorruptArtifact otherwise."""
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256:
            raise CorruptArtifact(f"the checkpoint's bytes hash to {actual}, expected {sha256}")
        try:
            tensors = load(data)
            header_length = int.from_bytes(data[:8], "little")
            metadata = json.loads(data[8 : 8 + header_length])["__metadata__"]
            state = json.loads(metadata["state"])
            if state["format"] != FORMAT:
                raise CorruptArtifact("the checkpoint was written by another version of Osora")
            return cls(
                step=state["step"],
                trained_tokens=state["trained_tokens"],
                identity=state["identity"],
                spec=state["spec"],
                **{name: tensors[name] for name in _ROWS},
                curve=Curve.from_parts(
                    tensors["losses"].tolist(), tensors["accuracies"].tolist(), state["evaluations"]
                ),
                best=tensors.get("best"),
                ends_epoch=state["ends_epoch"],
            )
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"the checkpoint cannot be parsed: {error}") from error
