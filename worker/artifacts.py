"""Adapters as objects: their bytes, and what the registry has to know of them."""

import hashlib

from osora_core.adapter import Adapter
from registry.jobs import NewAdapter


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
    )
