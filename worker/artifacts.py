"""Adapters and result files as objects: their bytes, and what the registry has to know of them."""

import hashlib

from osora_core.adapter import Adapter
from osora_core.training import Outcome, SweepOutcome
from registry.jobs import NewAdapter, NewResultFile


def artifact(adapter: Adapter, key: str, step: int) -> tuple[bytes, NewAdapter]:
    """The ZIP to store under `key`, and its description; `step` is the one of its job whose state it is."""
    data = adapter.to_zip()
    return data, NewAdapter(
        step=step,
        object_key=key,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        base_fingerprint=adapter.base_fingerprint,
        basis_fingerprint=adapter.basis_fingerprint,
        rank=adapter.rank,
        parameters=adapter.parameters,
        target_modules=adapter.target_modules,
        mix=adapter.mix_size,
    )


def result_files(outcome: Outcome, folder: str) -> list[tuple[bytes, NewResultFile]]:
    """The job's curve, and of a sweep the curves of all members, to be stored under `folder`."""
    contents = {"step_metrics.csv": outcome.curve.to_csv()}
    if isinstance(outcome, SweepOutcome):
        contents["sweep.csv"] = outcome.family
    encoded = {name: text.encode() for name, text in contents.items()}
    return [
        (data, NewResultFile(name, f"{folder}/{name}", hashlib.sha256(data).hexdigest(), len(data)))
        for name, data in encoded.items()
    ]
