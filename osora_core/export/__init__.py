"""Adapters for the world outside: as a LoRA, and merged into their base as a plain checkpoint or a GGUF file.

All take the stored artifact and its basis (`BasisCache.find` gives it without the base).
"""

from osora_core.export.gguf_file import to_gguf
from osora_core.export.lora import to_lora
from osora_core.export.merged import merge

__all__ = ["merge", "to_gguf", "to_lora"]
