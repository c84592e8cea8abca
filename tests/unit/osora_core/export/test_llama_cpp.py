"""GGUF files in llama.cpp itself, where it can be imported (llama-cpp-python).

Beside the bundled base, any whose folders are named in $OSORA_TEST_BASES, separated as in $PATH.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from osora_core import export
from osora_core.adapter import Adapter
from osora_core.basis import BasisCache
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from tests.support.gguf import BASES, adapt, make_base
from tests.support.gguf_tokenizers import KINDS, NO_FIRST_SPACE, ONLY_CONVERSATIONS, TEXTS, conversation, tokenizer_of
from tests.support.inference import run

llama_cpp = pytest.importorskip("llama_cpp")
ROOT = Path(__file__).parents[4]
FOLDERS = [str(ROOT / "models" / "osora-tiny"), *filter(None, os.environ.get("OSORA_TEST_BASES", "").split(os.pathsep))]
QUESTIONS = ("I want to book a table for two.", "What is 12 + 30?", "Write a haiku about rain.", "def add(a, b):")
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


def opened(path: Path, length: int = 0) -> Any:
    """With a cache in float32, as half precision there would hide small faults."""
    exact = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "flash_attn": False}
    return llama_cpp.Llama(str(path), n_ctx=length, logits_all=True, verbose=False, n_threads=2, **exact)


@pytest.mark.parametrize("name", BASES)
def test_llama_cpp_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", name)
    adapter, basis = adapt(base)
    export.to_gguf(adapter, basis, tmp_path / "a.gguf")
    export.merge(adapter, basis, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager").eval()
    reader = opened(tmp_path / "a.gguf")
    length = reader.n_ctx()
    tokens = torch.randint(
        3, 250, (1, min(reader._model.n_ctx_train(), 60)), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        expected = model(input_ids=tokens).logits[0].numpy()
    reader.eval(tokens[0].tolist())
    found = reader.scores[: tokens.shape[1]]
    assert length >= tokens.shape[1]
    # llama.cpp has a table of GELU in half precision.
    tolerance = 1e-2 if name.startswith("gemma") else 2e-3
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    bare = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        assert not np.allclose(bare(input_ids=tokens).logits[0].numpy(), expected, atol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_reads_texts_as_the_tokenizer_does(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    base = make_base(tmp_path / "base", "llama, tied", tokenizer=tokenizer)
    adapter, basis = adapt(base)
    export.to_gguf(adapter, basis, tmp_path / "a.gguf")
    reader = opened(tmp_path / "a.gguf")
    for text in TEXTS:
        data = text.encode()
        printed = str(tokenizer.apply_chat_template(conversation(text), tokenize=False, add_generation_prompt=True))
        expected = tokenizer(printed, add_special_tokens=False).input_ids
        assert reader.tokenize(printed.encode(), add_bos=False, special=True) == expected, printed
        if kind not in ONLY_CONVERSATIONS and not (kind in NO_FIRST_SPACE and text.startswith(" ")):
            expected = tokenizer(text, add_special_tokens=False).input_ids
            assert reader.tokenize(data, add_bos=False, special=True) == expected, text
            assert reader.tokenize(data, add_bos=True, special=True) == (tokenizer(text).input_ids)
        ids = reader.tokenize(data, add_bos=False, special=False)
        assert reader.detokenize(ids).strip() == data.strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_real_base_reads_and_answers_in_llama_cpp_as_here(folder: str, tmp_path: Path) -> None:
    runtime = Runtime.load("real", BasisCache(tmp_path / "cache"), path=folder, device="cpu", rank=8)
    row = 0.02 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(4))
    adapter = Adapter.from_row(row, runtime.basis, rank=8, modules=set(runtime.basis.target_modules), base=folder)
    export.to_gguf(adapter, runtime.basis, tmp_path / "a.gguf", dtype="float32")
    reader = opened(tmp_path / "a.gguf", length=1024)
    tokenizer = runtime.tokenizer
    for text in (*TEXTS, *((ROOT / file).read_text()[:3000] for file in ("README.md", "models/train_tiny.py"))):
        for printed in (text, prompt_of(tokenizer, conversation(text))):
            expected = tokenizer(printed, add_special_tokens=False).input_ids
            assert reader.tokenize(printed.encode(), add_bos=False, special=True) == expected
    prompts = {}
    for question in QUESTIONS:
        printed = prompt_of(tokenizer, [{"role": "user", "content": question}])
        prompts[question] = tuple(tokenizer(printed, add_special_tokens=False).input_ids)
    params = SamplingParams(max_tokens=30, logprobs=True)
    mine = AdapterRow("mine", row, rank=8)
    engine = InferenceEngine(runtime, rows=4)
    answers = run(engine, [Request(question, ids, params, mine) for question, ids in prompts.items()])
    for question, ids in prompts.items():
        answer = [score.token for score in answers[question].scores]
        assert greedy(reader, list(ids), len(answer)) == answer, question


def prompt_of(tokenizer: Any, messages: list[dict[str, Any]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def greedy(reader: Any, prompt: list[int], count: int) -> list[int]:
    """The likeliest continuation in llama.cpp."""
    reader.reset()
    reader.eval(prompt)
    answer: list[int] = []
    while len(answer) < count:
        answer.append(int(reader.scores[reader.n_tokens - 1].argmax()))
        reader.eval(answer[-1:])
    return answer
