"""Keys and values take the memory that is there: less of it means that requests wait, and at last shorter texts."""

import math
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from osora_core.errors import MemoryTooSmall
from osora_core.inference import InferenceEngine, Output, Request, SamplingParams, cache
from osora_core.inference.cache import LEAST_TOKENS, KVPool, PoolSize
from osora_core.runtime import Runtime
from tests.support.inference import prompt, run, solo

CONFIG = LlamaConfig(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=100,
    intermediate_size=64,
)  # fmt: skip
TOKEN = 2 * 3 * 2 * 16 * 4  # keys and values, layers, heads, their size, float32


def fit(limit: float, *, lines: int = 8, length: int = 1000, device: str = "cpu") -> PoolSize:
    return PoolSize.within(limit, CONFIG, lines, length, dtype=torch.float32, device=torch.device(device))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_more_is_taken_than_is_needed(device: str) -> None:
    for limit in (math.inf, 8 * 1001 * TOKEN):
        size = fit(limit, device=device)
        assert (size.lines, size.length, size.tokens) == (8, 1000, 8000)
        assert size.bytes == 8000 * TOKEN


def test_on_a_cpu_all_requests_share_what_is_there() -> None:
    size = fit(2500 * TOKEN)
    assert (size.lines, size.length, size.tokens) == (8, 1000, 2500)


def test_on_a_gpu_fewer_requests_run() -> None:
    size = fit(2500 * TOKEN, device="cuda")
    assert (size.lines, size.length, size.tokens) == (2, 1000, 2000)


@pytest.mark.parametrize(("device", "lines"), [("cpu", 8), ("cuda", 1)])
def test_where_not_one_long_text_has_room_texts_are_shorter(device: str, lines: int) -> None:
    size = fit(600 * TOKEN, device=device)
    assert (size.lines, size.length) == (lines, 599)
    assert size.bytes <= 600 * TOKEN


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_too_little_for_a_short_text_is_a_sentence(device: str) -> None:
    assert fit((LEAST_TOKENS + 1) * TOKEN, device=device).length == LEAST_TOKENS
    with pytest.raises(
        MemoryTooSmall, match=r"0\.1\d+ MiB are there for keys and values, and a text of 256 tokens takes"
    ):
        fit(LEAST_TOKENS * TOKEN, device=device)
    # A base that reads no more than that needs no more.
    assert fit(20 * TOKEN, length=16, device=device).length == 16


def test_limited_address_space_leaves_fewer_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, what is mapped counts before it is used."""
    monkeypatch.setattr(cache, "mappable_bytes", lambda: 2 * 3500 * TOKEN)
    assert (fit(math.inf).lines, fit(math.inf).length) == (3, 1000)


def taken(body: str) -> int:
    """Bytes that a process has more in memory after `body`, which makes and uses a pool of `size`."""
    program = (
        "import torch\n"
        "from osora_core.inference.cache import KVPool, PoolSize\n"
        "from tests.unit.osora_core.inference.test_pool import CONFIG, resident\n"
        "kind = {'dtype': torch.float32, 'device': torch.device('cpu')}\n"
        "size = PoolSize.within(2**40, CONFIG, 16, 2**16, **kind)\n"
        "before = resident()\n"
        f"{body}\n"
        "print(resident() - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    return int(found.stdout)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_keys_and_values_take_no_memory_before_they_are_written() -> None:
    line = 2**16 * TOKEN
    assert taken("pool = KVPool(CONFIG, size, **kind); assert not pool.keys[:, :, :, :9000].any()") < line
    assert line < taken("pool = KVPool(CONFIG, size, **kind); pool.keys[:, 3:5] = 1") < 3 * line


def test_what_a_long_text_took_is_given_back() -> None:
    """Otherwise lines that were long one after another would take together what none may."""
    used = "for line in range(16): pool.keys[:, line] = pool.values[:, line] = 1; pool.clear(line, size.length)"
    assert taken(f"pool = KVPool(CONFIG, size, **kind)\n{used}") < 2**16 * TOKEN


@pytest.mark.parametrize("positions", [1, 40, 299, 300])
def test_a_cleared_line_is_zero_and_others_stay(positions: int) -> None:
    size = fit(math.inf, lines=3, length=300)
    pool = KVPool(CONFIG, size, dtype=torch.float32, device=torch.device("cpu"))
    for tensor in (pool.keys, pool.values):
        tensor[:, :, :, :positions] = 1
    pool.clear(1, positions)
    pool.move(2, 1, positions)
    for tensor in (pool.keys, pool.values):
        assert (tensor[:, :2, :, :positions] == 1).all()
        assert not tensor[:, 2].any()
        assert not tensor[:, :, :, positions : pool.length].any()


def test_requests_wait_until_those_that_run_leave_room(runtime: Runtime) -> None:
    """For all that they may become; the answers are the same as alone, in the order in which they were asked for."""
    wanted = [
        Request(str(number), prompt(runtime, number)[:12], SamplingParams(max_tokens=2 + number % 3))
        for number in range(7)
    ]
    kind = {"dtype": runtime.model.dtype, "device": runtime.device}
    token = PoolSize.within(math.inf, runtime.config, 1, 16, **kind).token_bytes
    engine = InferenceEngine(runtime, rows=7, max_length=16, kv_bytes=33 * token)
    running = []
    step = engine.step

    def watch() -> list[Output]:
        outputs = step()
        running.append(len({output.request_id for output in outputs}))
        return outputs

    engine.step = watch  # type: ignore[method-assign]
    assert run(engine, wanted) == {request.id: solo(runtime, request) for request in wanted}
    assert max(running) == 2
    assert engine.rows == 7


def test_one_that_waits_for_room_is_not_overtaken(runtime: Runtime) -> None:
    kind = {"dtype": runtime.model.dtype, "device": runtime.device}
    token = PoolSize.within(math.inf, runtime.config, 1, 64, **kind).token_bytes
    engine = InferenceEngine(runtime, rows=4, max_length=64, kv_bytes=65 * token)
    text = (prompt(runtime, 0) * 9)[:40]
    sizes = {"first": 30, "long": 60, "short": 20}
    for name, size in sizes.items():
        engine.add(Request(name, text[: size - 10], SamplingParams(max_tokens=10, logit_bias={5: 100.0})))
    ended = []
    while engine.busy:
        ended += [output.request_id for output in engine.step() if output.finish_reason]
    assert ended == ["first", "long", "short"]
