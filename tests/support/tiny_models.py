"""Random causal LMs of a few thousand parameters: the architectures that the tuner is held to."""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

KINDS = ("llama", "qwen2", "mistral", "gpt2")
VOCABULARY = 64


def make_model(kind: str = "llama", dtype: torch.dtype = torch.float32, *, seed: int = 0) -> PreTrainedModel:
    """The same weights for the same arguments; Qwen2 has biases, GPT-2 Conv1D and dropout that eval turns off."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2,
            bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        model: PreTrainedModel = GPT2LMHeadModel(config)
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.2)
    else:
        classes = {"llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM)}
        make_config, make = classes[kind]
        model = make(make_config(**shape))
    return model.to(dtype).eval()


def make_tokens(rows: int = 3, length: int = 7, *, seed: int = 1) -> torch.Tensor:
    """Token ids [rows, length]."""
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))
