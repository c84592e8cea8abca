"""Adapters as people bring them: a ZIP of a PEFT directory. No torch: what is in them fits nothing."""

import io
import json
import struct
import zipfile
from typing import Any

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def lora_weights() -> bytes:
    """A safetensors file with one A and one B."""
    key = "base_model.model.q_proj"
    header = {
        f"{key}.lora_A.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        f"{key}.lora_B.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 32]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(32)


def archive(files: dict[str, bytes] | None = None, **config: Any) -> bytes:
    """A ZIP of these files, or of a small LoRA with these settings: the same bytes at any time of the day."""
    settings = json.dumps({"peft_type": "LORA", "r": 2, **config}).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in (files or {CONFIG: settings, WEIGHTS: lora_weights()}).items():
            opened.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
