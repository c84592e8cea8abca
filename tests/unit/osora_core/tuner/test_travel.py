"""An adapter that the service trained, downloaded to another machine: it loads in PEFT and answers as it did there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from osora_core import base_models
from osora_core.adapter import Adapter
from osora_core.basis import Basis, BasisCache, Factors
from osora_core.inference import AdapterRow, Request, SamplingParams, TokenScore
from osora_core.runtime import Runtime
from tests.support.inference import prompt, solo

TINY = base_models.resolve("osora-tiny")

# What a user writes, in a process of its own: on so many threads, in both dtypes, with or without our config's import.
PROGRAM = """
import json, sys
import torch
torch.set_num_threads(int(sys.argv[1]))
{imports}
from peft import PeftModel
from transformers import AutoModelForCausalLM
answers = []
for dtype in (torch.float32, torch.bfloat16):
    base = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=dtype)
    model = PeftModel.from_pretrained(base, sys.argv[3]).eval()
    for prompt in json.loads(sys.argv[4]):
        with torch.no_grad():
            answer = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)
        answers.append([token for token in answer[0, len(prompt):].tolist() if token != base.config.eos_token_id])
print(json.dumps(answers))
"""


def elsewhere(threads: int, imports: str, folder: Path, prompts: list[list[int]], **environment: str) -> Any:
    """What another process answers: in float32 to all prompts, then in bfloat16."""
    words = [str(threads), TINY, str(folder), json.dumps(prompts)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(imports=imports), *words],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4]), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=["this processor", "another processor"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, bool]:
    """A service, and whether its basis is the one that this machine computes."""
    cache = BasisCache(tmp_path_factory.mktemp("service"))
    runtime = Runtime.load("osora-tiny", cache, device="cpu")
    if request.param == "this processor":
        return runtime, True
    own = runtime.basis
    rounded = {n: Factors(f.U.bfloat16().float(), f.S, f.Vt.bfloat16().float()) for n, f in own.factors.items()}
    Basis(rounded, own.base_fingerprint, own.rank).save(cache.directory / own.key)
    return Runtime.load("osora-tiny", cache, device="cpu"), False


@pytest.mark.parametrize(("threads", "imports"), [(1, "import osora_core"), (2, "from osora_core import OsoraConfig")])
def test_a_downloaded_adapter_answers_as_the_service_does(
    service: tuple[Runtime, bool], tmp_path: Path, threads: int, imports: str
) -> None:
    runtime, computed_here = service
    row = 0.1 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(3))
    modules = {"q_proj", "down_proj"}
    adapter = Adapter.from_row(row, runtime.basis, rank=16, modules=modules, base=runtime.public_name)
    adapter.save(tmp_path / "adapter")
    prompts = decided(runtime, adapter)
    environment = {"OSORA_CACHE": str(tmp_path / "cache")}
    if not computed_here:
        environment["OSORA_BASIS_FROM"] = str(tmp_path / "bases")
        runtime.basis.save(tmp_path / "bases" / f"{runtime.basis.fingerprint}.safetensors")
    found = elsewhere(threads, imports, tmp_path / "adapter", prompts, **environment)
    expected = [answer(runtime, adapter, tokens) for tokens in prompts]
    assert expected != [answer(runtime, None, tokens) for tokens in prompts]
    assert found == [*expected, *expected]


def decided(runtime: Runtime, adapter: Adapter) -> list[list[int]]:
    """Two prompts whose answers no rounding changes: each token is far likelier than the next best."""
    found = []
    for index in range(40):
        tokens = list(prompt(runtime, index))
        scores = scores_of(runtime, adapter, tokens)
        if len({score.token for score in scores}) > 2 and min(s.top[0][1] - s.top[1][1] for s in scores) > 0.4:
            found.append(tokens)
        if len(found) == 2:
            return found
    raise AssertionError("an answer that says nothing shows nothing")


def answer(runtime: Runtime, adapter: Adapter | None, tokens: list[int]) -> list[int]:
    """The service's greedy tokens."""
    return [score.token for score in scores_of(runtime, adapter, tokens)]


def scores_of(runtime: Runtime, adapter: Adapter | None, tokens: list[int]) -> list[TokenScore]:
    row = None if adapter is None else AdapterRow("a", adapter.to_row(runtime.basis), adapter.rank)
    params = SamplingParams(max_tokens=8, logprobs=True, top_logprobs=2)
    return solo(runtime, Request("r", tuple(tokens), params, row)).scores
