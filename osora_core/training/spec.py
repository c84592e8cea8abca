"""What a training job is: a frozen, serialisable value, stored with the job and its adapter."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from osora_common.hyperparameters import Spec
from osora_core.errors import UserError


@dataclass(frozen=True)
class JobSpec(Spec):
    """A spec that can be trained. Raises UserError for a value that cannot be."""

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": 0 < self.learning_rate < float("inf"),
            "sigma_rate": 0 < self.sigma_rate < float("inf"),
            "rank": self.rank >= 1,
            "mix": type(self.mix) is int and self.mix >= 0,
            "mix_rate": 0 < self.mix_rate < float("inf"),
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
        if self.mix > self.rank:
            raise UserError(
                f"the mix {self.mix} is above the rank {self.rank}",
                param="osora.mix",
                next_action=f"choose a mix of at most {self.rank}, or a higher rank",
            )

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


def listed(specs: Iterable[JobSpec]) -> tuple[str, str]:
    """What the members of a sweep were listed by, as the name of a field and in words: presets where they differ in
    rank or mix, else rates."""
    several = len({spec.shape for spec in specs}) > 1
    return ("osora.preset", "presets") if several else ("osora.learning_rate", "rates")
