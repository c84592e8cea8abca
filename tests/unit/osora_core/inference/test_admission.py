"""One tenant's flood leaves rows, and room for tokens, to those who come later."""

import math

import pytest

from osora_core.inference import InferenceEngine, Request, SamplingParams
from osora_core.inference.cache import PoolSize
from osora_core.runtime import Runtime
from tests.support.inference import prompt


def _request(runtime: Runtime, tenant: str, number: int, tokens: int) -> Request:
    forever = SamplingParams(max_tokens=tokens, logit_bias={5: 100.0})
    return Request(f"{tenant}-{number}", prompt(runtime, 0)[:12], forever, tenant=tenant)


@pytest.mark.parametrize("short", ["rows", "tokens"])
def test_who_comes_after_a_flood_is_answered_at_once(runtime: Runtime, short: str) -> None:
    kind = {"dtype": runtime.model.dtype, "device": runtime.device}
    token = PoolSize.within(math.inf, runtime.config, 1, 64, **kind).token_bytes
    rows, kv_bytes = (4, math.inf) if short == "rows" else (8, 130 * token)  # of 32 tokens each: four
    engine = InferenceEngine(runtime, rows=rows, max_length=64, kv_bytes=kv_bytes, tenant_share=0.5)
    for number in range(10):
        engine.add(_request(runtime, "flood", number, tokens=20))
    for _ in range(3):
        engine.step()
    assert engine.running == 2
    engine.add(_request(runtime, "late", 0, tokens=2))
    assert {output.request_id for output in engine.step()} == {"flood-0", "flood-1", "late-0"}


def test_one_request_is_always_within_its_tenants_share(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1, max_length=64, tenant_share=0.5)
    engine.add(_request(runtime, "alone", 0, tokens=40))
    (output,) = engine.step()
    assert output.request_id == "alone-0"
