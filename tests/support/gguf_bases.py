"""GGUF files of bases that tests make, quantised or not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from osora_core.data.conversation import conversations_of
from osora_core.export.gguf_family import describe, family_of
from osora_core.export.gguf_tensors import tensors_of
from osora_core.export.gguf_vocabulary import vocabulary_of

Change = Callable[[gguf.GGUFWriter], None]


def write_gguf(
    base: Path,
    path: Path,
    quantised: gguf.GGMLQuantizationType | None = None,
    *,
    architecture: str | None = None,
    more: Change = lambda writer: None,
    renamed: Mapping[str, str] | None = None,
) -> Path:
    """A base's folder as a GGUF file. Matrices whose rows divide into blocks are `quantised`; `more` writes further
    settings or tensors, `renamed` gives tensors other names."""
    config: Any = AutoConfig.from_pretrained(base)
    family = family_of(config)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    writer = gguf.GGUFWriter(path, architecture or family.architecture)
    describe(writer, config, family)
    vocabulary_of(tokenizer, config.vocab_size, conversations_of(tokenizer).end_of_turn).write(writer)
    more(writer)
    for tensor in tensors_of(model, family):
        values, name = tensor.array(), (renamed or {}).get(tensor.name, tensor.name)
        if quantised is not None and values.ndim == 2 and values.shape[-1] % gguf.GGML_QUANT_SIZES[quantised][0] == 0:
            blocks = gguf.quantize(values.astype(np.float32), quantised)
            writer.add_tensor(name, blocks, raw_dtype=quantised)
        else:
            writer.add_tensor(name, values, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
