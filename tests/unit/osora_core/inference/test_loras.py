"""Plain LoRAs in the engine answer as PEFT answers with them, in whatever company."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config

from osora_core.basis import BasisCache
from osora_core.errors import UserError
from osora_core.inference import InferenceEngine, LoraRow, Request, SamplingParams
from osora_core.inference.lora_bank import bank_bytes
from osora_core.runtime import Runtime
from tests.support.inference import adapter, agree, prompt, run, solo
from tests.support.loras import lora_row, make_lora, peft_answer
from tests.support.tiny_base import make_family

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

PARAMS = SamplingParams(max_tokens=10, logprobs=True)
MLP = ["gate_proj", "up_proj", "down_proj"]
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LORAS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "everything": {"r": 3, "lora_alpha": 2, "target_modules": ATTENTION + MLP},
    "rslora": {"r": 5, "lora_alpha": 3, "use_rslora": True, "target_modules": MLP},
    "patterns": {
        "r": 4,
        "lora_alpha": 4,
        "target_modules": [*ATTENTION, "down_proj"],
        "rank_pattern": {"down_proj": 7, "^model.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.o_proj": 9},
    },
    "one layer": {"r": 6, "lora_alpha": 6, "target_modules": ["up_proj"], "layers_to_transform": [1]},
}


@pytest.fixture(scope="module")
def folders(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("loras")
    return {
        name: make_lora(base_path, folder / name, seed=seed, **config)
        for seed, (name, config) in enumerate(LORAS.items())
    }


def compare(runtime: Runtime, base: Path, folder: Path, tokens: tuple[int, ...]) -> None:
    """The engine's greedy answer, token by token, beside that of PEFT."""
    result = solo(runtime, Request("a", tokens, PARAMS, lora_row(runtime, folder)))
    assert result.error is None
    expected, scores = peft_answer(base, folder, tokens, PARAMS.max_tokens)
    stops = [index for index, token in enumerate(expected) if token in runtime.eos_ids]
    expected = expected[: stops[0]] if stops else expected
    assert [score.token for score in result.scores] == expected
    for place, score in enumerate(result.scores):
        assert score.logprob == pytest.approx(float(scores[place, score.token]), abs=1e-4)


@pytest.mark.parametrize("name", LORAS)
def test_a_lora_answers_as_peft_does(runtime: Runtime, base_path: Path, folders: dict[str, Path], name: str) -> None:
    compare(runtime, base_path, folders[name], prompt(runtime, 3))
    bare = solo(runtime, Request("a", prompt(runtime, 3), PARAMS))
    assert solo(runtime, Request("a", prompt(runtime, 3), PARAMS, lora_row(runtime, folders[name]))) != bare


def gpt2(**sizes: Any) -> PretrainedConfig:
    """Its linears are Conv1D, three of them fused into one."""
    sizes = {name: value for name, value in sizes.items() if name not in ("num_key_value_heads", "head_dim")}
    sizes["n_inner"] = sizes.pop("intermediate_size")
    return GPT2Config(**sizes)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [(Qwen2Config, ATTENTION + MLP), (LlamaConfig, ATTENTION), (gpt2, ["c_attn", "c_proj", "c_fc"])],
)
def test_other_families_answer_as_with_peft(tmp_path: Path, kind: Any, targets: list[str]) -> None:
    base = make_family(tmp_path / "base", kind)
    runtime = Runtime.load("family", BasisCache(tmp_path / "cache"), path=str(base), device="cpu", rank=8)
    folder = make_lora(base, tmp_path / "lora", r=4, lora_alpha=4, target_modules=targets, fan_in_fan_out=kind is gpt2)
    compare(runtime, base, folder, (5, 17, 40, 23, 9))


@pytest.mark.parametrize(("prefill_tokens", "lora_ranks"), [(7, 16), (2048, 7), (2048, 256)])
def test_mixed_equals_solo(runtime: Runtime, folders: dict[str, Path], prefill_tokens: int, lora_ranks: int) -> None:
    """LoRAs, adapters of the basis and the base: more of them than rows and room, joining and leaving all the time."""
    rows: list[Any] = [lora_row(runtime, folder) for folder in folders.values()]
    rows += [None, *(adapter(runtime, f"adapter-{n}", n) for n in range(3))]
    wanted = [
        Request(f"r{i}", prompt(runtime, i), SamplingParams(max_tokens=3 + i % 9, logprobs=True), rows[i % len(rows)])
        for i in range(24)
    ]
    engine = InferenceEngine(runtime, rows=4, adapters=4, prefill_tokens=prefill_tokens, lora_ranks=lora_ranks)
    mixed = run(engine, wanted)
    for request in wanted:
        agree(mixed[request.id], solo(runtime, request), noise=1e-4)
    assert len({result.text for result in mixed.values()}) > 4


def test_the_padded_execution_mixes_them_as_well(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", gpt2)
    runtime = Runtime.load("family", BasisCache(tmp_path / "cache"), path=str(base), device="cpu", rank=8)
    loras = [
        lora_row(
            runtime, make_lora(base, tmp_path / f"{n}", seed=n, r=3 + n, target_modules=["c_attn"], fan_in_fan_out=True)
        )
        for n in range(2)
    ]
    rows: list[Any] = [*loras, None, adapter(runtime, "a", 1)]
    wanted = [Request(f"r{i}", tuple(range(3 + i, 9 + 2 * i)), PARAMS, rows[i % 4]) for i in range(9)]
    engine = InferenceEngine(runtime, rows=3, lora_ranks=7)
    assert engine.execution == "Padded"
    mixed = run(engine, wanted)
    for request in wanted:
        agree(mixed[request.id], solo(runtime, request), noise=1e-4)


def test_a_lora_that_finds_no_room_holds_up_nobody_else(runtime: Runtime, folders: dict[str, Path]) -> None:
    """It waits for the ranks of another one, while the base is served; and it is not overtaken by LoRAs for ever."""
    first, second = (lora_row(runtime, folders[name]) for name in ("plain", "everything"))
    engine = InferenceEngine(runtime, rows=3, lora_ranks=5)
    long = SamplingParams(max_tokens=30, stop_tokens=frozenset())
    engine.add(Request("holds", prompt(runtime, 1), long, first, tenant="a"))
    engine.step()
    engine.add(Request("waits", prompt(runtime, 1), SamplingParams(max_tokens=2), second, tenant="b"))
    engine.add(Request("same", prompt(runtime, 1), SamplingParams(max_tokens=2), first, tenant="c"))
    engine.add(Request("bare", prompt(runtime, 1), SamplingParams(max_tokens=2), tenant="d"))
    ended = []
    while engine.busy:
        ended += [output.request_id for output in engine.step() if output.finish_reason is not None]
    assert ended.index("bare") < ended.index("holds") < ended.index("waits")
    assert ended.index("holds") < ended.index("same")


def test_a_lora_that_is_examined_waits_for_room_as_well(runtime: Runtime, folders: dict[str, Path]) -> None:
    """Meanwhile the base is served, and adapters of the basis are examined; and no LoRA comes before it for ever."""
    first, second = (lora_row(runtime, folders[name]) for name in ("plain", "everything"))
    engine = InferenceEngine(runtime, rows=3, lora_ranks=5)
    long = SamplingParams(max_tokens=30, stop_tokens=frozenset())
    engine.add(Request("holds", prompt(runtime, 1), long, first, tenant="a"))
    engine.step()
    tokens, ids = prompt(runtime, 1), torch.zeros(len(prompt(runtime, 1)), 1, dtype=torch.long)
    answers: list[Future[Tensor]] = [Future(), Future()]
    engine.examine(second, tokens, ids, answers[0])
    engine.examine(adapter(runtime, "a", 1), tokens, ids, answers[1])
    engine.add(Request("same", prompt(runtime, 1), SamplingParams(max_tokens=2), first, tenant="c"))
    engine.add(Request("bare", prompt(runtime, 1), SamplingParams(max_tokens=2), tenant="d"))
    ended = []
    while engine.busy:
        ended += [output.request_id for output in engine.step() if output.finish_reason is not None]
        ended += [f"examined {n}" for n, answer in enumerate(answers) if answer.done()]
    assert max(map(ended.index, ("bare", "examined 1"))) < ended.index("holds") < ended.index("examined 0")
    assert ended.index("holds") < ended.index("same")
    expected: Future[Tensor] = Future()
    alone = InferenceEngine(runtime, rows=1)
    alone.examine(second, tokens, ids, expected)
    alone.step()
    torch.testing.assert_close(answers[0].result(0), expected.result(0), rtol=1e-4, atol=1e-4)


def test_a_lora_of_too_large_a_rank_fails_alone(runtime: Runtime, folders: dict[str, Path]) -> None:
    engine = InferenceEngine(runtime, rows=2, lora_ranks=3)
    requests = [
        Request("large", prompt(runtime, 1), PARAMS, lora_row(runtime, folders["plain"])),
        Request("fits", prompt(runtime, 1), PARAMS, lora_row(runtime, folders["everything"])),
    ]
    results = run(engine, requests)
    assert isinstance(results["large"].error, UserError)
    assert "rank is 4" in str(results["large"].error)
    agree(results["fits"], solo(runtime, requests[1]), noise=1e-4)


def test_what_one_lora_makes_of_numbers_reaches_nobody_else(runtime: Runtime, folders: dict[str, Path]) -> None:
    """Values that leave the range of numbers: its own request fails, its neighbours and its columns' next owner do
    not."""
    sound = lora_row(runtime, folders["everything"])
    broken = LoraRow("broken", {index: (A * 1e30, B * 1e30) for index, (A, B) in sound.factors.items()}, sound.rank)
    engine = InferenceEngine(runtime, rows=3, lora_ranks=6)
    requests = [
        Request("broken", prompt(runtime, 1), PARAMS, broken),
        Request("sound", prompt(runtime, 1), PARAMS, sound),
        Request("bare", prompt(runtime, 1), PARAMS),
    ]
    results = run(engine, requests)
    assert results["broken"].error is not None
    others = [Request("next", prompt(runtime, 1), PARAMS, lora_row(runtime, folders["patterns"]))]
    engine_after = InferenceEngine(runtime, rows=3, lora_ranks=7)
    run(engine_after, [requests[0]])
    results |= run(engine_after, others)
    for request in [*requests[1:], *others]:
        agree(results[request.id], solo(runtime, request), noise=1e-4)


def test_memory_is_taken_when_the_first_lora_comes(runtime: Runtime, folders: dict[str, Path]) -> None:
    engine = InferenceEngine(runtime, rows=1, lora_ranks=8)
    run(engine, [Request("bare", prompt(runtime, 1), PARAMS, adapter(runtime, "a", 1))])
    assert engine.loras.bank.is_empty
    run(engine, [Request("lora", prompt(runtime, 1), PARAMS, lora_row(runtime, folders["plain"]))])
    assert not engine.loras.bank.is_empty
    sizes = [factors.Vt.shape[1] + factors.U.shape[0] for factors in runtime.basis.factors.values()]
    assert bank_bytes(runtime.basis, 8) == 8 * sum(sizes) * torch.float32.itemsize
