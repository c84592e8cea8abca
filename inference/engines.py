"""The engines of all bases, in the memory that there is for keys and values, for LoRAs and for mixes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from inference.settings import InferenceSettings
from osora_core.errors import MemoryTooSmall
from osora_core.free_memory import available_bytes
from osora_core.inference import InferenceEngine
from osora_core.inference.check import checked_engine
from osora_core.inference.lora_bank import bank_bytes
from osora_core.inference.mix_bank import mix_bytes
from osora_core.runtime import Runtime

logger = logging.getLogger(__name__)

# Of the memory that is free when all bases are loaded. On a GPU the rest is for what a step works on. On a CPU it is
# the other programs' too, and one that takes too much is killed.
_SHARE = {"cuda": 0.8, "cpu": 0.5}
# Of that, what is set aside for LoRAs at most, and as much for mixes: a base whose memory is short is for texts first.
_LORA_SHARE = 0.125
_MIX_SHARE = 0.125
# Of the rows, for one tenant. Each row more makes a CPU's steps longer for all, a GPU's hardly.
_TENANT_SHARE = {"cuda": 0.875, "cpu": 0.5}


def make_engines(
    settings: InferenceSettings, runtimes: Mapping[str, Runtime], cache: Path
) -> dict[str, InferenceEngine]:
    """A warm engine for every base, whose answers are those of transformers (the verdicts are kept in `cache`).

    All bases share the memory for keys and values; what one has no need of is for those behind it. Raises
    MemoryTooSmall, naming the setting to change, and UnsupportedBase.
    """
    engines: dict[str, InferenceEngine] = {}
    room = _room(settings, next(iter(runtimes.values())).device)  # as all others'
    for number, (name, runtime) in enumerate(runtimes.items()):
        engines[name], taken = _make(settings, runtime, cache, room / (len(runtimes) - number))
        room -= taken
    return engines


def make_engine(
    settings: InferenceSettings, runtime: Runtime, cache: Path, others: Sequence[InferenceEngine]
) -> InferenceEngine:
    """The engine of a base that comes while those of `others` run, in the memory that they leave.

    Raises as `make_engines` does.
    """
    room = _room(settings, runtime.device)
    if settings.inference_kv_bytes is not None or runtime.device.type == "cpu":
        # A CPU's memory is taken when something is written to it; what is promised to others is not this one's.
        room -= sum(engine.pool.size.bytes for engine in others)
    return _make(settings, runtime, cache, max(0.0, room))[0]


def _make(settings: InferenceSettings, runtime: Runtime, cache: Path, own: float) -> tuple[InferenceEngine, float]:
    """An engine, and how much of the room `own` it takes."""
    ranks, mixes = _lora_ranks(settings, runtime, own), _mixes(settings, runtime, own)
    aside = bank_bytes(runtime.basis, ranks) + mix_bytes(runtime.basis, settings.inference_mix, mixes)
    aside = aside if settings.inference_kv_bytes is None else 0
    try:
        engine, verdict = checked_engine(
            runtime, cache, rows=settings.inference_rows, adapters=settings.inference_adapters,
            max_length=settings.inference_max_length, kv_bytes=own - aside, lora_ranks=ranks,
            largest_mix=settings.inference_mix, mixes=mixes,
            tenant_share=settings.inference_tenant_share or _TENANT_SHARE[runtime.device.type],
        )  # fmt: skip
    except MemoryTooSmall as error:
        raise _named(error, runtime.name, settings) from error
    logger.info(
        "base %s (%s) answers through %s; at worst %.2g nats from transformers, where %g are allowed",
        runtime.name, runtime.basis.base_fingerprint[:12], engine.execution, verdict.worst, verdict.tolerance,
    )  # fmt: skip
    _tell_size(runtime.name, engine, settings)
    return engine, engine.pool.size.bytes + aside


def _room(settings: InferenceSettings, device: torch.device) -> float:
    """Bytes for keys and values, and if no setting says how many, for LoRAs as well."""
    if settings.inference_kv_bytes is not None:
        return settings.inference_kv_bytes
    return _SHARE[device.type] * available_bytes(device)


def _lora_ranks(settings: InferenceSettings, runtime: Runtime, room: float) -> int:
    """Ranks of LoRAs that a base has room for: those that are set, and no more than a part of what is free."""
    wanted = settings.inference_lora_ranks
    if settings.inference_kv_bytes is not None:  # who says what is whose has done the sum
        return wanted
    ranks = min(wanted, int(_LORA_SHARE * room / bank_bytes(runtime.basis, 1)))
    if ranks < wanted:
        logger.info(
            "base %s: plain LoRAs have room for %d ranks in all, not for the %d of OSORA_INFERENCE_LORA_RANKS",
            runtime.name, ranks, wanted,
        )  # fmt: skip
    return ranks


def _mixes(settings: InferenceSettings, runtime: Runtime, room: float) -> int:
    """How many mixes a base has room for: as many as are set, and no more than a part of what is free."""
    wanted = settings.inference_mixes
    one = mix_bytes(runtime.basis, settings.inference_mix, 1)
    if settings.inference_kv_bytes is not None or one == 0:
        return wanted
    mixes = min(wanted, int(_MIX_SHARE * room / one))
    if mixes < wanted:
        logger.info(
            "base %s: %d adapters with a mix of %d have room, not the %d of OSORA_INFERENCE_MIXES",
            runtime.name, mixes, settings.inference_mix, wanted,
        )  # fmt: skip
    return mixes


def _tell_size(name: str, engine: InferenceEngine, settings: InferenceSettings) -> None:
    size = engine.pool.size
    length = min(settings.inference_max_length, engine.runtime.max_length)
    wanted = settings.inference_rows * length
    most = f"; {settings.inference_rows} of {length} tokens would take {_gib(wanted * size.token_bytes)}: others wait"
    logger.info(
        "base %s: keys and values take up to %s (OSORA_INFERENCE_KV_BYTES), enough for %d requests at once, of up to "
        "%d tokens each and %d together%s", name, _gib(size.bytes), size.lines, size.length, size.tokens,
        most if size.tokens < wanted else "",
    )  # fmt: skip
    if size.length < length:
        logger.warning(
            "base %s: texts of more than %d tokens are refused, because their keys and values have no room; raise "
            "OSORA_INFERENCE_KV_BYTES, or give this process more memory", name, size.length,
        )  # fmt: skip


def _named(error: MemoryTooSmall, name: str, settings: InferenceSettings) -> MemoryTooSmall:
    """The error with the base and the setting."""
    given = settings.inference_kv_bytes
    return MemoryTooSmall(
        f"the base {name!r} cannot be served: {error.message}",
        param=error.param,
        next_action=error.next_action if given is None else f"raise OSORA_INFERENCE_KV_BYTES, which is {given}",
    )


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
