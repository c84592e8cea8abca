"""Inference: continuous batching over an unmodified model, every row with an adapter of its own."""

from osora_core.inference.engine import InferenceEngine
from osora_core.inference.request import AdapterRow, LoraRow, Output, Request, SamplingParams, TokenScore

__all__ = ["AdapterRow", "InferenceEngine", "LoraRow", "Output", "Request", "SamplingParams", "TokenScore"]
