"""Adapters from outside: what they are, and whether this server would serve them, before anybody can call them."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from inference.adapters import judged
from inference.errors import ServerError
from inference.loop import EngineLoop
from inference.schemas import InspectRequest
from osora_common.ranks import DEFAULT_RANK
from osora_core import canary
from osora_core.adapter import CONFIG_NAME, Adapter, unpack, verify
from osora_core.errors import CorruptArtifact, UserError
from osora_core.inference import AdapterRow, LoraRow
from osora_core.inference.slots import check_mix, check_rank
from osora_core.lora import Lora

_SECONDS = 120
T = TypeVar("T")


def inspect(loop: EngineLoop, fetch: Callable[[str], bytes | memoryview], request: InspectRequest) -> dict[str, Any]:
    """What the artifact is. It has been laid out for this base and asked, as it will be when it is called.

    For a thread. Raises CorruptArtifact, UserError or IdentityMismatch for one that is not to be served.
    """
    data = fetch(request.object_key)
    verify(data, request.sha256)
    kind = _kind(unpack(data)[0])
    try:
        if kind == "OSORA":
            return _osora(loop, Adapter.from_zip(data), request.sha256)
        return _lora(loop, Lora.from_zip(data), request.sha256)
    except CorruptArtifact as error:  # of somebody who can mend it: no fault of the store's
        raise UserError(error.message, param="file", next_action=error.next_action) from error


def _kind(config: bytes) -> str:
    try:
        kind = json.loads(config).get("peft_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{CONFIG_NAME} cannot be read", param="file") from error
    if kind not in ("OSORA", "LORA"):
        raise UserError(
            f"{CONFIG_NAME} is that of a {str(kind)[:40]} adapter; OSoRA adapters and plain LoRAs are served",
            param="file",
            next_action="convert it to a LoRA, or merge it into the base and serve that as a base of its own",
        )
    return str(kind)


def _osora(loop: EngineLoop, adapter: Adapter, key: str) -> dict[str, Any]:
    runtime = loop.engine.runtime
    check_mix(adapter.mix_size, loop.engine.mixes.bank.largest)
    row = adapter.to_row(runtime.basis)
    longest = max(len(sigma) for sigma in adapter.sigma.values())
    if type(adapter.rank) is not int or not longest <= adapter.rank <= max(runtime.basis.rank, DEFAULT_RANK):
        raise UserError(
            f"the adapter's r is {str(adapter.rank)[:40]}; its vectors have {longest} values and the basis has rank "
            f"{runtime.basis.rank}",
            param="file",
        )
    if not row.isfinite().all():
        raise UserError("the adapter holds values that are not numbers", param="file")
    asked = AdapterRow(key, row.to(runtime.basis.dtype), adapter.rank, adapter.mix_size)
    published = canary.read(runtime, adapter)
    if published is None:
        _ask(loop, asked)
    else:
        _wait(judged(loop.examine(asked, published.tokens, published.ids), published.judge))
    return {
        "type": "osora",
        "rank": adapter.rank,
        "mix": adapter.mix_size,
        "parameters": adapter.parameters,
        "target_modules": adapter.target_modules,
        "base_fingerprint": adapter.base_fingerprint,
        "basis_fingerprint": adapter.basis_fingerprint,
        "warnings": [],
    }


def _lora(loop: EngineLoop, lora: Lora, key: str) -> dict[str, Any]:
    runtime = loop.engine.runtime
    check_rank(lora.rank, loop.engine.loras.bank.capacity)
    factors = lora.factors(runtime.basis, runtime.basis.dtype)
    _ask(loop, LoraRow(key, factors, lora.rank))
    named, known = lora.config.base, {runtime.name, runtime.public_name, runtime.model.name_or_path}
    warnings = []
    if named and not {named.rstrip("/"), named.rstrip("/").rpartition("/")[2]} & known:
        warnings.append(
            f"the LoRA says that its base is {named[:200]!r}, not {runtime.public_name!r}; its shapes fit, which does "
            "not say that it was trained on these weights"
        )
    return {
        "type": "lora",
        "rank": lora.rank,
        "parameters": lora.parameters,
        "target_modules": lora.target_modules,
        "base_fingerprint": runtime.basis.base_fingerprint,
        "basis_fingerprint": None,
        "warnings": warnings,
    }


def _ask(loop: EngineLoop, row: AdapterRow | LoraRow) -> None:
    """Raise UserError unless the adapter's answers are numbers."""
    tokens = canary.prompt_tokens(loop.engine.runtime)
    answer = _wait(loop.examine(row, tokens, torch.zeros(len(tokens), 1, dtype=torch.long)))
    if not answer.isfinite().all():
        raise UserError(
            "with this adapter the base's output is something that is not a number",
            param="file",
            next_action="check that it was trained on this base, and lower its lora_alpha",
        )


def _wait(answer: "Future[T]") -> T:
    try:
        return answer.result(_SECONDS)
    except TimeoutError as error:
        raise ServerError(
            503, "service_unavailable_error", "overloaded",
            f"for {_SECONDS} seconds there was no room to try the adapter in; others are answering",
        ) from error  # fmt: skip
