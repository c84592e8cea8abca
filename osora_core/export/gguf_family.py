"""The families that a GGUF file is written of: what llama.cpp takes for granted of each, and what must be said.

llama.cpp has one graph for each architecture. A setting that its graph does not have would be left out in silence, so
whatever would be is refused here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, RopeScalingType
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from osora_core.errors import UnsupportedBase
from osora_core.runtime import usable_length

_LLAMA_BIASES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """How one of transformers' families becomes one of llama.cpp's architectures.

    permuted: rows of q and k lie in pairs, as llama.cpp rotates them there. shifted_norms: a norm's weight is stored
    less 1. window: one layer in so many attends to the whole text, and the others to a window. biases: linears
    that may have one. scalings: of rotary embeddings. wide_layers: a depth at which llama.cpp scales attention by
    hidden size and heads, not by the head's size.
    """

    architecture: str
    activation: str = "silu"
    biases: tuple[str, ...] = ()
    permuted: bool = False
    shifted_norms: bool = False
    window: int | None = None
    any_head_size: bool = True
    wide_layers: int | None = None
    scalings: tuple[str, ...] = ("default", "linear", "yarn")
    writes: Callable[[GGUFWriter, Any], None] | None = None


def _soft_caps(writer: GGUFWriter, config: Any) -> None:
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _final_soft_cap(writer: GGUFWriter, config: Any) -> None:
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


_LLAMA = Family("llama", biases=_LLAMA_BIASES, permuted=True, scalings=("default", "linear", "yarn", "llama3"))
_GEMMA = "gelu_pytorch_tanh"
FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Family("qwen2", biases=("q_proj", "k_proj", "v_proj"), any_head_size=False),
    "qwen3": Family("qwen3"),
    "gemma": Family("gemma", _GEMMA, shifted_norms=True, scalings=("default",)),
    "gemma2": Family(
        "gemma2", _GEMMA, shifted_norms=True, window=2, wide_layers=46, scalings=("default",), writes=_soft_caps
    ),
    "gemma3_text": Family(
        "gemma3", _GEMMA, shifted_norms=True, window=6, wide_layers=62, scalings=("default", "linear"),
        writes=_final_soft_cap,
    ),
    "phi3": Family("phi3", any_head_size=False, scalings=("default", "longrope")),
    "gpt2": Family("gpt2", "gelu_new", biases=("c_attn", "c_proj", "c_fc"), any_head_size=False, scalings=()),
}  # fmt: skip


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a base, all of whose settings llama.cpp computes as transformers does. Raises UnsupportedBase."""
    kind = config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        raise refusal(f"no GGUF file is written of the family {kind!r}, only of {', '.join(sorted(FAMILIES))}")
    for name, found, wanted in _expectations(family, config):
        if found not in wanted:
            raise refusal(f"llama.cpp has no {kind} whose {name} is {found!r}")
    return family


def refusal(problem: str) -> UnsupportedBase:
    """That a base cannot be written, and what else to do."""
    return UnsupportedBase(
        problem,
        param="format",
        next_action="download it as `merged`, which llama.cpp's own convert_hf_to_gguf.py may know how to convert",
    )


def _expectations(family: Family, config: Any) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Settings as (name, value, values that llama.cpp computes)."""
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    found = [
        ("activation", activation or getattr(config, "activation_function", None), (family.activation,)),
        ("head_dim", head_size(config), (head_size(config) if family.any_head_size else _plain_head_size(config),)),
        ("use_bidirectional_attention", getattr(config, "use_bidirectional_attention", None), (None, False)),
        ("scale_attn_by_inverse_layer_idx", getattr(config, "scale_attn_by_inverse_layer_idx", False), (False,)),
        ("scale_attn_weights", getattr(config, "scale_attn_weights", True), (True,)),
        ("add_cross_attention", getattr(config, "add_cross_attention", False), (False,)),
    ]
    if family.scalings:
        found.append(("rope_type", rotary(config).get("rope_type", "default"), family.scalings))
    if family.architecture != "phi3" and family.scalings:
        found.append(("partial_rotary_factor", rotary(config).get("partial_rotary_factor", 1.0), (1.0,)))
    if family.shifted_norms:
        found.append(("tie_word_embeddings", config.tie_word_embeddings, (True,)))
    if family.window:
        found.append(("layer_types", list(config.layer_types), (_pattern(family.window, config.num_hidden_layers),)))
        wide = config.num_hidden_layers == family.wide_layers
        size = _plain_head_size(config) if wide else head_size(config)
        found.append(("query_pre_attn_scalar", config.query_pre_attn_scalar, (size,)))
        capped = config.attn_logit_softcapping is not None
        found.append(("attn_logit_softcapping", capped and config.attn_logit_softcapping, _caps(family, config)))
    if family.architecture == "gemma3":
        local = config.rope_parameters["sliding_attention"].get("rope_type", "default")
        found.append(("rope_type in a window", local, ("default",)))
    return found


def _caps(family: Family, config: Any) -> tuple[Any, ...]:
    if family.architecture == "gemma3":
        return (False,)
    return (config.attn_logit_softcapping,) if config.final_logit_softcapping else ()


def _pattern(every: int, layers: int) -> list[str]:
    return ["full_attention" if (n + 1) % every == 0 else "sliding_attention" for n in range(layers)]


def describe(writer: GGUFWriter, config: Any, family: Family) -> None:
    """Write what llama.cpp must know of a base's shape."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(exact_length(config, family))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    writer.add_feed_forward_length(inner or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if not family.scalings:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if family.window:
        writer.add_sliding_window(config.sliding_window)
    if family.writes:
        family.writes(writer, config)
    _describe_rotary(writer, config, family)


def _describe_rotary(writer: GGUFWriter, config: Any, family: Family) -> None:
    rope = rotary(config)
    writer.add_rope_dimension_count(int(head_size(config) * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if family.architecture == "gemma3":
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    match rope.get("rope_type"):
        case "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            _describe_yarn(writer, config, rope)
        case "longrope":
            writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
            writer.add_rope_scaling_orig_ctx_len(usable_length(config))
            writer.add_rope_scaling_attn_factors(float(ROPE_INIT_FUNCTIONS["longrope"](config, "cpu", 1)[1]))


def _describe_yarn(writer: GGUFWriter, config: Any, rope: Mapping[str, Any]) -> None:
    if any(rope.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim")) or not rope.get(
        "truncate", True
    ):
        raise refusal("llama.cpp has no yarn scaling with an attention_factor, mscale or truncate of its own")
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_scaling_yarn_beta_fast(float(rope.get("beta_fast") or 32))
    writer.add_rope_scaling_yarn_beta_slow(float(rope.get("beta_slow") or 1))


def rotary(config: Any) -> Mapping[str, Any]:
    """The settings of the rotary embeddings, of layers without a window where others have their own."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    own: Mapping[str, Any] = rope.get("full_attention", rope)
    return own


def head_size(config: Any) -> int:
    """Elements of one attention head."""
    return int(getattr(config, "head_dim", None) or _plain_head_size(config))


def _plain_head_size(config: Any) -> int:
    return int(config.hidden_size // config.num_attention_heads)


def exact_length(config: Any, family: Family) -> int:
    """Tokens up to which llama.cpp computes what transformers does.

    It has a window of attention for the families with a pattern of such layers alone; with the others, a text must not
    be longer than their window.
    """
    longest = usable_length(config)
    window = None if family.window else _window(config)
    return longest if window is None else min(longest, window)


def _window(config: Any) -> int | None:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    if not getattr(config, "use_sliding_window", True):
        return None
    window: int | None = getattr(config, "sliding_window", None)
    return window
