"""A tiny random model of any causal LM family that transformers knows, from its configuration class alone."""

import inspect
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

MOST_PARAMETERS = 4_000_000
LAYERS = 2

# Sizes under the names that configurations give them. A family takes those that it has.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "embedding_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "decoder_layers", "encoder_layers", "n_layers", "num_encoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads", "encoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "d_kv"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length", "max_seq_len"), 128),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_top_k"), 2),
    "n_shared_experts": 1, "sliding_window": 24, "attention_window": 24,
    "is_decoder": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


class CannotShrink(Exception):
    """transformers has no small model of this family that could be made without knowing it."""


def tiny_config(family: str, vocabulary: int) -> PreTrainedModel:
    """A model of up to MOST_PARAMETERS random values. Raises CannotShrink."""
    reasons = []
    for without in ((), ("head_dim",), ("head_dim", "v_head_dim"), ("num_hidden_layers",), ("sliding_window",)):
        try:
            config = _config(CONFIG_MAPPING[family], vocabulary, set(without))
            with torch.device("meta"):
                size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
            if size > MOST_PARAMETERS:
                raise CannotShrink(f"{size} parameters")
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            model = _shaken(model.float().eval())
            with torch.inference_mode():
                model(input_ids=torch.arange(3, 40).unsqueeze(0), use_cache=False)
            return model
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}")
    raise CannotShrink(reasons[0])


def _config(kind: type[PretrainedConfig], vocabulary: int, without: set[str]) -> PretrainedConfig:
    standard = kind()
    own: dict[str, Any] = {
        name: size for name, size in _SIZES.items() if name not in without and _has(kind, standard, name)
    }
    own["vocab_size"] = vocabulary
    for name, sub in getattr(kind, "sub_configs", {}).items():
        if isinstance(sub, type) and name.endswith("text_config") or name in ("text_config", "decoder"):
            own[name] = _config(type(getattr(standard, name)), vocabulary, without)
    for name in ("layer_types", "mlp_layer_types", "layers_block_type", "block_types"):
        kinds = getattr(standard, name, None)
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
