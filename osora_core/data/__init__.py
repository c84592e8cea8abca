"""Datasets: rows to rendered, masked token sequences, and batches of them in a reproducible order."""

from osora_core.data.batching import PaddedBatch, batch_order, pad, split_by_tokens
from osora_core.data.examples import Example, Preference, Row, sequences
from osora_core.data.rendering import Renderer, read_examples, read_preferences

__all__ = [
    "Example",
    "PaddedBatch",
    "Preference",
    "Renderer",
    "Row",
    "batch_order",
    "pad",
    "read_examples",
    "read_preferences",
    "sequences",
    "split_by_tokens",
]
