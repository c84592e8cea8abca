"""Datasets of a handful of rows, examples of arbitrary tokens, and a base."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.data import DATASETS, turns
from osora_core import attention
from osora_core.data import Example
from tests.support.tiny_models import make_model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A handful of rows in the form of every dataset."""
    folder = tmp_path / "data"
    for name in DATASETS:
        (folder / name).mkdir(parents=True)
    for split, count in (("train", 20), ("test", 4)):
        pairs = [(f"help {i}", f"order {i % 2}") for i in range(count)]
        lines = ["text,category", *(f'"{text}",{answer}' for text, answer in pairs)]
        (folder / "banking77" / f"{split}.csv").write_text("\n".join(lines))
        chats = [json.dumps({"messages": turns(text, answer)}) for text, answer in pairs]
        (folder / "snips" / f"{split}.jsonl").write_text("\n".join(chats))
        questions = [json.dumps({"question": text, "answer": answer}) for text, answer in pairs]
        (folder / "gsm8k" / f"{split}.jsonl").write_text("\n".join(questions))
    return folder


@pytest.fixture
def examples() -> list[Example]:
    """Five rows of different lengths."""
    return [Example(tuple(range(3 + i, 9 + 2 * i)), (False,) * 3 + (True,) * (3 + i), i) for i in range(5)]


@pytest.fixture
def model() -> Any:
    """A small Llama with the service's own attention."""
    attention.register()
    made = make_model()
    made.set_attn_implementation(attention.NAME)
    return made.requires_grad_(False)
