"""Datasets: rows to rendered, masked token sequences, and batches of them in a reproducible order."""

from osora_core.data.batching import FlatBatch, PaddedBatch, batch_order, flatten, pad, split_by_tokens
from osora_core.data.examples import Example, Preference, Row, sequences
from osora_core.data.files import rows_of
from osora_core.data.rendering import Renderer, read_examples, read_preferences

__all__ = [
    "Example",
    "FlatBatch",
    "PaddedBatch",
    "Preference",
    "Renderer",
    "Row",
    "batch_order",
    "flatten",
    "pad",
    "read_examples",
    "read_preferences",
    "rows_of",
    "sequences",
    "split_by_tokens",
]
