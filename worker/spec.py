"""From what a tenant asked for to a training spec: where "auto" becomes a number."""

import math
from collections.abc import Mapping
from typing import Any

from osora_core.training import JobSpec

DEFAULT_LEARNING_RATE = JobSpec.learning_rate
# What decides how a job runs, not what comes out of it, and what is worked out below.
_NOT_THE_SPECS = (
    "learning_rate", "max_length", "checkpoint_steps", "checkpoint_seconds", "sample_prompts", "sample_tokens",
    "from_adapter",
)  # fmt: skip


def training_spec(hyperparameters: Mapping[str, Any], osora: Mapping[str, Any], *, rows: int, seed: int) -> JobSpec:
    """The spec of a job over `rows` rows.

    "auto" batches grow with the data, from 4 to 64 rows, and "auto" epochs are as many as give a small dataset about
    400 steps, from 2 to 10: vectors learn by steps, not by batch size.
    """
    batch_size = _number(hyperparameters.get("batch_size"), min(64, max(4, 2 ** round(math.log2(max(rows, 1) / 80)))))
    epochs = _number(hyperparameters.get("n_epochs"), min(10, max(2, round(400 * batch_size / max(rows, 1)))))
    multiplier = _number(hyperparameters.get("learning_rate_multiplier"), 1.0)
    rate = _number(osora.get("learning_rate"), DEFAULT_LEARNING_RATE * multiplier)
    own = {name: value for name, value in osora.items() if name not in _NOT_THE_SPECS}
    return JobSpec.from_dict(
        {**own, "seed": seed, "epochs": int(epochs), "batch_size": int(batch_size), "learning_rate": rate}
    )


def _number(value: Any, default: float) -> float:
    return default if value is None or value == "auto" else value
