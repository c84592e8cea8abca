"""What a LoRA's adapter_config.json asks for, read strictly: what we would compute otherwise than PEFT is refused."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from osora_core.errors import UserError

# Settings of PEFT's LoraConfig that change nothing of what a trained adapter answers.
_WITHOUT_EFFECT = frozenset(
    {
        "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "inference_mode", "target_modules", "exclude_modules", "lora_dropout", "fan_in_fan_out",
        "layers_to_transform", "layers_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config",
        "corda_config", "lora_ga_config", "runtime_config", "qalora_group_size", "ensure_weight_tying",
    }
)  # fmt: skip
_READ = frozenset({"r", "lora_alpha", "rank_pattern", "alpha_pattern"})
_MERGE = "merge it into the base with PEFT and serve that as a base of its own"
# What is refused, unless its value is one of these; each with a reason in words.
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "use_rslora": ((True, False, None), "it is neither true nor false"),
    "bias": (("none", None), "the base's biases are trained as well"),
    "use_dora": ((False, None), "DoRA scales the base's weights as well"),
    "lora_bias": ((False, None), "its B has biases"),
    "modules_to_save": ((None, [], ()), "whole modules are trained as well"),
    "trainable_token_indices": ((None, [], {}), "embeddings of tokens are trained as well"),
    "layer_replication": ((None, []), "the base's layers are repeated"),
    "target_parameters": ((None, []), "it adapts parameters that are no linear modules"),
    # Others take something from the base's weights, and only PEFT knows how to take it again.
    "init_lora_weights": ((True, False, None, "gaussian", "orthogonal", "eva"), "the base's weights were changed too"),
}
# A pattern is a regular expression for PEFT. Those that are names are matched without running what somebody wrote.
_NAME = re.compile(r"\^?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_MOST_PATTERNS = 10_000
_LARGEST = 1e6


@dataclass(frozen=True)
class LoraConfig:
    """The ranks and scales of a LoRA's modules; base: what it calls its base, perhaps nothing.

    targets: the modules, by their names or the ends of these; None where they are not listed.
    """

    base: str
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rslora: bool
    targets: frozenset[str] | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "LoraConfig":
        """Raises UserError, naming the setting, for what is not a plain LoRA that we compute as PEFT does."""
        for name, value in config.items():
            _refuse(name, value)
        ranks = {name: _rank(f"rank_pattern.{name}", value) for name, value in _pattern(config, "rank_pattern")}
        alphas = {name: _number(f"alpha_pattern.{name}", value) for name, value in _pattern(config, "alpha_pattern")}
        base = config.get("base_model_name_or_path")
        return cls(
            base if isinstance(base, str) else "",
            _rank("r", config.get("r", 8)),
            _number("lora_alpha", config.get("lora_alpha", 8)),
            ranks,
            alphas,
            config.get("use_rslora") is True,
            _targets(config.get("target_modules")),
        )

    def takes(self, module: str) -> bool:
        """Whether PEFT makes room for a module of this full name: it drops the tensors of any other without a word."""
        parts = module.split(".")
        ends = (".".join(parts[first:]) for first in range(len(parts)))
        return self.targets is None or any(end in self.targets for end in ends)

    def rank_of(self, module: str) -> int:
        """The rank of a module, by its full name."""
        return self.ranks.get(_key(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """What multiplies B A x of a module: alpha / r, or with rslora (arXiv 2312.03732) alpha / sqrt(r)."""
        rank = self.rank_of(module)
        alpha = self.alphas.get(_key(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _refuse(name: str, value: Any) -> None:
    if name in _REFUSED:
        fine, why = _REFUSED[name]
        if not any(value == one and type(value) is type(one) for one in fine):
            raise UserError(
                f"the LoRA's {name} is {_shown(value)}, which is not supported: {why}", param=name, next_action=_MERGE
            )
    elif name not in _WITHOUT_EFFECT and name not in _READ and value not in (None, False, 0, "", [], {}):
        raise UserError(
            f"the LoRA's {name[:60]!r} is {_shown(value)}, a setting that is not supported", param=name[:60],
            next_action=_MERGE,
        )  # fmt: skip


def _pattern(config: Mapping[str, Any], name: str) -> Iterable[tuple[str, Any]]:
    pattern = config.get(name) or {}
    if not isinstance(pattern, dict) or len(pattern) > _MOST_PATTERNS:
        raise UserError(f"the LoRA's {name} is not an object of up to {_MOST_PATTERNS} names", param=name)
    for key in pattern:
        if not _NAME.fullmatch(key):
            raise UserError(
                f"the LoRA's {name} has the regular expression {_shown(key)}; only names of modules are supported",
                param=name,
                next_action="write the modules' names instead",
            )
    return list(pattern.items())


def _key(pattern: Mapping[str, Any], module: str) -> str:
    """The first key that stands for a module: its name, or with a dot before it the end of its name."""
    for key in pattern:
        if module == key.removeprefix("^") or (not key.startswith("^") and module.endswith(f".{key}")):
            return key
    return ""


def _targets(value: Any) -> frozenset[str] | None:
    """None for a regular expression, or a word that stands for many, and for what says nothing."""
    return frozenset(name for name in value if isinstance(name, str)) if isinstance(value, list) and value else None


def _rank(name: str, value: Any) -> int:
    if type(value) is not int or not 0 < value < _LARGEST:
        raise UserError(f"the LoRA's {name} is {_shown(value)}, which is no rank", param=name)
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < _LARGEST:
        raise UserError(f"the LoRA's {name} is {_shown(value)}, which is no usable number", param=name)
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
