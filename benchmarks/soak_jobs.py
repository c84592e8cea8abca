"""What a soak trains: a base of its own, a handful of kinds of jobs, and what makes two results the same."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from osora_core import base_models
from osora_core.adapter import Adapter
from registry import files, jobs
from registry.context import Registry
from registry.jobs import JobRequest
from registry.models import Adapter as AdapterRow
from registry.models import File
from registry.tenants import Principal

BASE = "soak"
RANK = 16
CHECKPOINT_STEPS = 10
_VALID_ROWS = 8

# What tests/unit/osora_core/training/test_training.py allows between a job that shares its steps and one that is alone.
_LOSS_RTOL = 1e-4
_VALUE_RTOL, _VALUE_ATOL = 1e-3, 1e-4


@dataclass(frozen=True)
class Kind:
    """Jobs of one kind are the same job: same data, same spec, same seed, and so the same result."""

    word: str
    """Of its data, and its name."""
    rows: int
    epochs: int
    batch_size: int
    seed: int
    osora: Mapping[str, Any] = field(hash=False)


# 120 to 150 steps each: about half a second to a second alone, longer than a drain takes to be heard of.
KINDS = (
    Kind("order", rows=40, epochs=12, batch_size=4, seed=1, osora={"rank": 16}),
    Kind("refund", rows=24, epochs=20, batch_size=4, seed=2, osora={"rank": 4, "target_modules": ["q_proj", "v_proj"]}),
    Kind("parcel", rows=64, epochs=16, batch_size=8, seed=3, osora={"rank": 8, "train": "s"}),
    Kind("invoice", rows=30, epochs=15, batch_size=3, seed=4, osora={"rank": 8, "train": "o", "learning_rate": 0.05}),
    Kind("address", rows=50, epochs=6, batch_size=2, seed=5, osora={"rank": 12, "evaluate": "never"}),
)


@dataclass(frozen=True)
class Result:
    """What a job leaves for its tenant. Equal results are the same to the last bit."""

    adapter: bytes
    curve: bytes
    trained_tokens: int | None

    def is_close(self, other: "Result") -> bool:
        """Whether they are the same within floating-point noise: vectors, losses; tokens exactly."""
        return (
            self.trained_tokens == other.trained_tokens
            and _adapters_are_close(self.adapter, other.adapter)
            and _curves_are_close(self.curve, other.curve)
        )


def make_base(folder: Path) -> Path:
    """A random Llama of a few hundred thousand parameters in `folder`, with the tokenizer of osora-tiny."""
    tokenizer = AutoTokenizer.from_pretrained(base_models.resolve("osora-tiny"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def upload(registry: Registry, principal: Principal) -> dict[Kind, JobRequest]:
    """The requests for a job of each kind, their data uploaded."""
    return {
        kind: JobRequest(
            base=BASE,
            training_file=_ingest(registry, principal, kind.word, kind.rows),
            validation_file=_ingest(registry, principal, kind.word, _VALID_ROWS),
            seed=kind.seed,
            hyperparameters={"n_epochs": kind.epochs, "batch_size": kind.batch_size},
            osora={"checkpoint_steps": CHECKPOINT_STEPS, **kind.osora},
        )
        for kind in KINDS
    }


def result(registry: Registry, principal: Principal, job_id: str) -> Result:
    """What a job that succeeded left."""
    with registry.reading() as session:
        job = jobs.get(session, principal, job_id)
        adapter = session.get_one(AdapterRow, job.adapter_id)
        curve = session.get_one(File, job.result_file_ids[0])
    store = registry.store
    return Result(store.get(adapter.object_key), store.get(curve.object_key), job.trained_tokens)


def _ingest(registry: Registry, principal: Principal, word: str, rows: int) -> str:
    lines = (
        {
            "messages": [
                {"role": "user", "content": f"help with {i} " + "please " * (i % 5)},
                {"role": "assistant", "content": f"{word} {i % 3}"},
            ]
        }
        for i in range(rows)
    )
    data = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
    return files.ingest(registry, principal, data, f"{word}.jsonl", files.TRAINING_PURPOSE).id


def _adapters_are_close(found: bytes, expected: bytes) -> bool:
    one, other = Adapter.from_zip(found), Adapter.from_zip(expected)
    return all(
        mine.keys() == theirs.keys()
        and all(torch.allclose(mine[name], theirs[name], rtol=_VALUE_RTOL, atol=_VALUE_ATOL) for name in mine)
        for mine, theirs in ((one.sigma, other.sigma), (one.delta, other.delta), (one.mix, other.mix))
    )


def _curves_are_close(found: bytes, expected: bytes) -> bool:
    """Steps and losses; an accuracy counts top tokens, and where two are as good as equal, noise decides."""
    one, other = (list(csv.DictReader(io.StringIO(curve.decode()))) for curve in (found, expected))
    return len(one) == len(other) and all(
        mine["step"] == theirs["step"]
        and all(_losses_are_close(mine[name], theirs[name]) for name in ("train_loss", "valid_loss"))
        for mine, theirs in zip(one, other, strict=True)
    )


def _losses_are_close(found: str, expected: str) -> bool:
    if not found or not expected:
        return found == expected
    return math.isclose(float(found), float(expected), rel_tol=_LOSS_RTOL)
