"""What a training job is: a frozen, serialisable value, stored with the job and its adapter."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from osora_core.errors import UserError


@dataclass(frozen=True)
class JobSpec:
    """Everything that decides a job's result besides the base and the data.

    learning_rate is relative: sigma moves by about sigma_rate * learning_rate * s0 a step, delta by learning_rate. It
    rises linearly over the first warmup_ratio of the steps and falls linearly to zero at the end.

    keep: which state becomes the adapter, the one with the lowest validation loss, that before the first step among
    them, or the last; without validation rows it is the last. early_stopping_patience: the job ends after so many
    epochs without a lower validation loss.

    method: how it learns from its rows, one of `osora_core.training.methods`; beta is of the loss of preferences there.
    """

    seed: int = 0
    epochs: int = 3
    batch_size: int = 4
    learning_rate: float = 0.03
    # Singular values bear a faster rate than outputs do: on the bundled example twice the rate learns most.
    sigma_rate: float = 2.0
    rank: int = 128
    target_modules: str | tuple[str, ...] = "all-linear"
    train: Literal["both", "s", "o"] = "both"
    warmup_ratio: float = 0.05
    max_grad_norm: float = 1.0
    evaluate: Literal["epoch", "never"] = "epoch"
    keep: Literal["best", "last"] = "best"
    early_stopping_patience: int | None = None
    method: str = "supervised"
    beta: float = 0.1

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": 0 < self.learning_rate < float("inf"),
            "sigma_rate": 0 < self.sigma_rate < float("inf"),
            "rank": self.rank >= 1,
            "train": self.train in ("both", "s", "o"),
            "warmup_ratio": 0 <= self.warmup_ratio <= 1,
            "max_grad_norm": self.max_grad_norm > 0,
            "evaluate": self.evaluate in ("epoch", "never"),
            "keep": self.keep in ("best", "last"),
            "beta": 0 < self.beta < float("inf"),
            "early_stopping_patience": self.early_stopping_patience is None or self.early_stopping_patience >= 1,
        }
        for name, holds in checks.items():
            if not holds:
                raise UserError(f"{name} cannot be {getattr(self, name)!r}", param=name)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "JobSpec":
        """The spec that `to_dict` (or its JSON) describes; raises UserError on a key it does not know."""
        unknown = values.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise UserError(f"a job has no setting {sorted(unknown)[0]!r}", param=sorted(unknown)[0])
        targets = values.get("target_modules", cls.target_modules)
        return cls(**{**values, "target_modules": targets if isinstance(targets, str) else tuple(targets)})

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """The rate of the step with this 0-based index."""
        warmup = max(1, round(self.warmup_ratio * total_steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (total_steps - step) / max(1, total_steps - warmup)
