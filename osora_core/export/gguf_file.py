"""A base with an adapter folded in as one GGUF file, for llama.cpp and what is built on it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_VERSION, GGUFWriter
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from osora_core import base_models
from osora_core.adapter import Adapter
from osora_core.basis import Basis
from osora_core.data.conversation import conversations_of
from osora_core.export.gguf_family import Family, describe, family_of
from osora_core.export.gguf_tensors import FILE_TYPES, tensors_of
from osora_core.export.gguf_vocabulary import STRIPPING_NAMES, Vocabulary, vocabulary_of
from osora_core.export.merged import merged_model, named_base
from osora_core.lora import Lora


def to_gguf(
    adapter: Adapter | Lora,
    basis: Basis,
    path: Path,
    *,
    base: str | None = None,
    dtype: str = "auto",
    name: str = "osora",
) -> None:
    """Write the base with the adapter folded in as a GGUF file at `path`, whole or not at all.

    `base` and `dtype` (float32, float16 or bfloat16) are as in `merge`; norms, biases and positions are float32 in any
    case, as llama.cpp wants them. `name` is what the file calls the model. The same adapter gives the same bytes.

    Raises UnsupportedBase, before the base's weights are loaded, where llama.cpp would compute or tokenise otherwise
    than this base does; IdentityMismatch if base or basis are not the adapter's; UserError for values that the dtype
    cannot hold.
    """
    adapter.check(basis)
    source = base_models.resolve(base or named_base(adapter))
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    family = family_of(config)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    vocabulary = vocabulary_of(tokenizer, config.vocab_size, conversations_of(tokenizer).end_of_turn)
    model = merged_model(adapter, basis, source, dtype)
    draft = path.with_name(f".{path.name}.part")
    try:
        _write(model, family, vocabulary, draft, _speaking(name, vocabulary))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write(model: PreTrainedModel, family: Family, vocabulary: Vocabulary, path: Path, name: str) -> None:
    config: Any = model.config
    writer = GGUFWriter(path, family.architecture)
    try:
        writer.add_type("model")
        writer.add_name(name)
        describe(writer, config, family)
        writer.add_file_type(FILE_TYPES[_dtype(model)])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        vocabulary.write(writer)
        tensors = list(tensors_of(model, family))
        for tensor in tensors:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype("V"), tensor.bytes, raw_dtype=tensor.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor.array())
    finally:
        writer.close()


def _dtype(model: PreTrainedModel) -> torch.dtype:
    embeddings: Any = model.get_input_embeddings()
    dtype: torch.dtype = embeddings.weight.dtype
    return dtype


def _speaking(name: str, vocabulary: Vocabulary) -> str:
    """A name in which llama.cpp sees, and only where it is so, that control tokens take the white space behind them."""
    says = any(known in name.lower() for known in STRIPPING_NAMES)
    if vocabulary.strips:
        return name if says else f"{name} (Phi-3)"
    return "osora" if says else name
