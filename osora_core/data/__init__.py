"""Datasets: rows to rendered, masked token sequences, and batches of them in a reproducible order."""

from osora_core.data.batching import PaddedBatch, batch_order, pad, split_by_tokens
from osora_core.data.rendering import Example, Renderer, read_examples

__all__ = ["Example", "PaddedBatch", "Renderer", "batch_order", "pad", "read_examples", "split_by_tokens"]
