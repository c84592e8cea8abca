"""GGUF files read as bases: what `osora_core.export` writes, the other way round, quantised weights included."""

from osora_core.gguf_base.convert import convert, is_converted

__all__ = ["convert", "is_converted"]
