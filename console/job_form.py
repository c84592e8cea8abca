"""What is asked of somebody who starts a job, and the request that it comes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from osora.options import JobFields
from osora.schemas import Base

AUTO = "auto"
RATES = {AUTO: "choose for me", "sweep": "try several (sweep)", "number": "this one"}
OVERLONG = {"refuse": "refuse the file", "truncate": "cut them", "drop": "leave them out"}
_METHODS = {"preference": "dpo"}


@dataclass
class Choices:
    """What was chosen so far. What is None or empty, the service chooses."""

    file_id: str | None = None
    format: str | None = None
    base: str | None = None
    preset: str | None = None
    suffix: str = ""
    epochs: int | None = None
    batch_size: int | None = None
    rate_kind: str = AUTO
    rate: float | None = None
    overlong: str = "refuse"
    validation_share: float | None = None
    validation_file: str | None = None
    sample_prompts: list[str] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        """Whether there is enough to ask for an estimate."""
        return self.file_id is not None and self.base is not None

    def fields(self) -> JobFields:
        """The request's, beside its model and its file."""
        hyperparameters: dict[str, Any] = _given(n_epochs=self.epochs, batch_size=self.batch_size)
        osora: dict[str, Any] = _given(
            preset=self.preset,
            learning_rate=self._learning_rate(),
            overlong=None if self.overlong == "refuse" else self.overlong,
            validation_share=self.validation_share,
            sample_prompts=self.sample_prompts or None,
        )
        fields: dict[str, Any] = _given(suffix=self.suffix.strip() or None, validation_file=self.validation_file)
        if method := _METHODS.get(self.format or ""):
            fields["method"] = {"type": method, method: {"hyperparameters": hyperparameters}}
        elif hyperparameters:
            fields["hyperparameters"] = hyperparameters
        if osora:
            fields["osora"] = osora
        made: JobFields = fields  # type: ignore[assignment]
        return made

    def _learning_rate(self) -> Any:
        return {AUTO: None, "sweep": "sweep", "number": self.rate}[self.rate_kind]


def presets_of(base: Base | None) -> dict[str, str]:
    """A base's presets by name, each with what it means there; none of a service that has none."""
    told: Any = (base or {}).get("presets") or []
    return {preset["preset"]: _preset(preset) for preset in told if preset.get("available", True)}


def _preset(preset: Mapping[str, Any]) -> str:
    parts = [f"rank {preset['rank']}"] + ([f"mix {preset['mix']}"] if preset.get("mix") else [])
    if preset.get("adapter_bytes"):
        parts.append(f"{preset['adapter_bytes'] / 1024:,.0f} KiB")
    return f"{preset['preset']} ({', '.join(parts)})"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
