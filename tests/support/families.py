"""A tiny random model of any causal LM family that transformers knows, from its configuration class alone."""

import inspect
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

MOST_PARAMETERS = 7_000_000
LAYERS = 2

# Sizes under the names that configurations give them. A family takes those that it has.
_NAMES: dict[int, str] = {
    32: "hidden_size n_embd d_model dim embed_dim embedding_dim word_embed_proj_dim projection_dim",
    48: "intermediate_size n_inner ffn_dim d_ff ffn_hidden_size encoder_ffn_dim decoder_ffn_dim",
    LAYERS: "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_encoder_layers"
    " num_decoder_layers num_experts_per_tok moe_k moe_top_k num_key_value_heads num_kv_heads",
    4: "num_attention_heads n_head num_heads n_heads decoder_attention_heads encoder_attention_heads"
    " num_encoder_attention_heads num_decoder_attention_heads num_experts num_local_experts n_routed_experts"
    " moe_num_experts",
    8: "head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim d_kv rotary_dim",
    16: "moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank mamba_chunk_size chunk_size"
    " patch_size",
    128: "max_position_embeddings n_positions max_sequence_length n_ctx seq_length max_seq_len",
    24: "sliding_window attention_window",
    1: "n_shared_experts",
    64: "image_size",
}
_SIZES: dict[str, Any] = {name: size for size, names in _NAMES.items() for name in names.split()} | {
    "is_decoder": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


# Attempts, one after the other: what is left as the family has it ("kinds" are those of layers), and other sizes. Some
# sizes of a family hang together in ways of its own.
_ATTEMPTS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    ((), {}), (("head_dim",), {}), (("subs",), {}),
    ((), {"num_key_value_heads": 4}), (("kinds",), {}), (("kinds", "head_dim"), {}),
    (("kinds", "num_hidden_layers"), {}), (("sliding_window",), {}), ((), {"num_experts_per_tok": 1}),
    (("kinds", "num_hidden_layers", "n_layer", "num_layers", "hidden_size", "num_attention_heads", "head_dim"), {}),
)  # fmt: skip


class CannotShrinkError(Exception):
    """transformers has no small model of this family that could be made without knowing it."""


def tiny_model(family: str, vocabulary: int) -> PreTrainedModel:
    """A model of up to MOST_PARAMETERS random values. Raises CannotShrinkError."""
    reasons = []
    for without, instead in _ATTEMPTS:
        try:
            config = _config(CONFIG_MAPPING[family], vocabulary, set(without), instead)
            with torch.device("meta"):
                small = AutoModelForCausalLM.from_config(config)
            # A table of all pairs of positions is a buffer, and may be gigabytes where a family reads long texts.
            size = sum(tensor.numel() for tensor in (*small.parameters(), *small.buffers()))
            if size > MOST_PARAMETERS:
                raise CannotShrinkError(f"{size} parameters")
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            model = _shaken(model.float().eval())
            with torch.inference_mode():
                model(input_ids=torch.arange(3, 40).unsqueeze(0), use_cache=False)
            return model
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}")
    raise CannotShrinkError(reasons[0])


def _config(
    kind: type[PretrainedConfig], vocabulary: int, without: set[str], instead: dict[str, Any]
) -> PretrainedConfig:
    standard = kind()
    own: dict[str, Any] = {
        name: size for name, size in (_SIZES | instead).items() if name not in without and _has(kind, standard, name)
    }
    if _has(kind, standard, "vocab_size"):
        own["vocab_size"] = vocabulary
    for name in getattr(kind, "sub_configs", {}):
        if isinstance(sub := getattr(standard, name, None), PretrainedConfig) and "subs" not in without:
            own[name] = _config(type(sub), vocabulary, without, instead)
    for name in ("layer_types", "mlp_layer_types", "layers_block_type", "block_types"):
        kinds = None if "kinds" in without else getattr(standard, name, None)
        if isinstance(kinds, list | tuple) and kinds:
            # One layer of each kind, so that none is left out.
            chosen = list(dict.fromkeys(kinds))
            own[name] = (chosen * LAYERS)[: max(LAYERS, len(chosen))]
            own["num_hidden_layers"] = len(own[name])
    return kind(**own)


def _has(kind: type[PretrainedConfig], standard: PretrainedConfig, name: str) -> bool:
    try:
        value = getattr(standard, name)
    except Exception:
        return False
    return not callable(value) and (value is not None or name in inspect.signature(kind.__init__).parameters)


def _shaken(model: PreTrainedModel) -> PreTrainedModel:
    """Biases and norms that are all zero or one would hide that they are left out; large weights show what differs."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.1))
    return model
