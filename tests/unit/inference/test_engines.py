"""The engines share the memory for keys and values, and the log says how much it is and which setting changes it."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inference import engines
from inference.engines import make_engines
from inference.settings import InferenceSettings
from osora_core.errors import MemoryTooSmall
from osora_core.inference.lora_bank import bank_bytes
from osora_core.inference.mix_bank import mix_bytes
from osora_core.runtime import Runtime
from tests.support.tiny_base import make_base

TOKEN = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, their size, float32


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inference.engines")


@pytest.fixture(scope="module")
def long_runtime(served_runtime: Runtime) -> Runtime:
    """A base that reads a thousand tokens."""
    return replace(served_runtime, name="long", max_length=1000)


def settings(**given: int) -> InferenceSettings:
    """Without room for mixes, unless it is given."""
    chosen = {"inference_mixes": 0, **given}
    return InferenceSettings(inference_rows=4, inference_adapters=4, **chosen)  # type: ignore[arg-type]


def test_by_default_it_is_half_of_what_is_free(
    served_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "available_bytes", lambda _: 2 * 300 * TOKEN)
    engine = make_engines(settings(inference_lora_ranks=0), {"tiny": served_runtime}, tmp_path)["tiny"]
    assert (engine.rows, engine.max_length, engine.pool.size.tokens) == (4, 128, 300)
    assert (
        "keys and values take up to 0.00 GiB (OSORA_INFERENCE_KV_BYTES), enough for 4 requests at once" in caplog.text
    )
    assert "of up to 128 tokens each and 300 together; 4 of 128 tokens would take 0.00 GiB: others wait" in caplog.text
    assert "WARNING" not in caplog.text


def test_no_more_is_taken_than_is_needed(
    served_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "available_bytes", lambda _: 1e12)
    engine = make_engines(settings(), {"tiny": served_runtime}, tmp_path)["tiny"]
    assert engine.pool.size.bytes == 4 * 128 * TOKEN
    assert "others wait" not in caplog.text


def test_room_for_mixes_is_set_aside_and_texts_come_first(
    served_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = mix_bytes(served_runtime.basis, 8, 1)

    def made(free: float, **given: int) -> tuple[int, int, int]:
        monkeypatch.setattr(engines, "available_bytes", lambda _: 2 * free)
        chosen = settings(**{"inference_lora_ranks": 0, "inference_mix": 8, "inference_mixes": 32, **given})
        engine = make_engines(chosen, {"tiny": served_runtime}, tmp_path)["tiny"]
        assert engine.mixes.bank.is_empty
        return engine.mixes.bank.capacity, engine.mixes.bank.largest, engine.pool.size.bytes

    assert made(1e12) == (32, 8, 4 * 128 * TOKEN)
    assert "have room" not in caplog.text
    # An eighth of what is free is for mixes, and the rest for texts.
    mixes, _, texts = made(24 * one)
    assert mixes == 3
    assert min(21 * one, 4 * 128 * TOKEN) - TOKEN < texts <= 21 * one
    assert "3 adapters with a mix of 8 have room, not the 32 of OSORA_INFERENCE_MIXES" in caplog.text
    # Where not one has room, none is promised.
    assert made(7 * one, inference_max_length=32)[:2] == (0, 0)
    assert made(1e12, inference_mixes=0)[:2] == (0, 0)


def test_room_for_loras_is_set_aside_and_texts_come_first(
    served_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rank = bank_bytes(served_runtime.basis, 1)

    def made(free: float, **given: int) -> tuple[int, int]:
        monkeypatch.setattr(engines, "available_bytes", lambda _: 2 * free)
        engine = make_engines(settings(**given), {"tiny": served_runtime}, tmp_path)["tiny"]
        return engine.loras.bank.capacity, engine.pool.size.bytes

    assert made(80 * rank, inference_lora_ranks=8) == (8, 4 * 128 * TOKEN)
    assert "have room for" not in caplog.text
    # An eighth of what is free is for LoRAs, and the rest for texts.
    assert made(80 * rank) == (10, 4 * 128 * TOKEN)
    assert "plain LoRAs have room for 10 ranks in all, not for the 256 of OSORA_INFERENCE_LORA_RANKS" in caplog.text
    ranks, texts = made(16 * rank)
    assert ranks == 2
    assert 14 * rank - TOKEN < texts <= 14 * rank
    assert made(1e12)[0] == 256
    assert made(1e12, inference_kv_bytes=300 * TOKEN) == (256, 300 * TOKEN)


def test_bases_share_it_and_what_one_does_not_need_is_for_the_next(served_runtime: Runtime, tmp_path: Path) -> None:
    def tokens(limit: int, **runtimes: Runtime) -> list[int]:
        made = make_engines(settings(inference_kv_bytes=limit * TOKEN), runtimes, tmp_path)
        return [engine.pool.size.tokens for engine in made.values()]

    assert tokens(400, one=served_runtime, other=served_runtime) == [200, 200]
    assert tokens(1400, one=served_runtime, two=served_runtime, three=served_runtime) == [466, 467, 467]
    assert tokens(9999, one=served_runtime, other=served_runtime) == [512, 512]


def test_shorter_texts_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, long_runtime: Runtime) -> None:
    engine = make_engines(settings(inference_kv_bytes=301 * TOKEN), {"long": long_runtime}, tmp_path)["long"]
    assert engine.max_length == 300
    assert "WARNING" in caplog.text
    assert "base long: texts of more than 300 tokens are refused" in caplog.text


def test_too_little_names_the_base_and_the_setting(
    long_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MemoryTooSmall, match=r"the base 'long' cannot be served: 0\.0488 MiB are") as refused:
        make_engines(settings(inference_kv_bytes=200 * TOKEN), {"long": long_runtime}, tmp_path)
    assert refused.value.next_action == f"raise OSORA_INFERENCE_KV_BYTES, which is {200 * TOKEN}"
    monkeypatch.setattr(engines, "available_bytes", lambda _: 200 * TOKEN)
    with pytest.raises(MemoryTooSmall) as refused:
        make_engines(settings(), {"long": long_runtime}, tmp_path)
    assert refused.value.next_action == "give this process more memory"


def test_the_program_ends_with_one_sentence(tmp_path: Path) -> None:
    """And with the status that says that to try again is no use."""
    base = make_base(tmp_path / "base")
    given = {
        "OSORA_BASES": f"tiny={base}",
        "OSORA_DATA_DIR": str(tmp_path / "data"),
        "OSORA_INFERENCE_KV_BYTES": "5000",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "inference"], env=os.environ | given, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == os.EX_CONFIG
    assert ended.stderr.splitlines()[-1] == (
        "the base 'tiny' cannot be served: 0.00477 MiB are there for keys and values, and a text of 128 tokens takes "
        "0.0315 MiB. Next: raise OSORA_INFERENCE_KV_BYTES, which is 5000."
    )
    assert "Traceback" not in ended.stderr
