"""Adapters from outside over HTTP: looked at before anybody can call them, and a plain LoRA served as it is."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from inference.exports import Exporter
from inference.schemas import AdapterRef, ExportRequest
from osora_common.scratch import Scratch
from osora_core import canary
from osora_core.adapter import CONFIG_NAME, WEIGHTS_NAME, Adapter, pack
from osora_core.data import Renderer
from osora_core.mix import mix_length
from osora_core.runtime import Runtime
from tests.support.loras import make_lora, peft_answer
from tests.unit.inference.conftest import InferenceServer

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def folder(served_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = served_runtime.model.name_or_path
    return make_lora(base, tmp_path_factory.mktemp("lora"), r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"])


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)}


def inspect(server: InferenceServer, files: Files) -> tuple[int, dict[str, Any]]:
    ref = server.put("brought.zip", pack(files))
    body = {"base": "tiny", "object_key": ref["object_key"], "sha256": ref["sha256"]}
    response = server.http.post("/inspect", json=body)
    return response.status_code, response.json()


def configured(files: Files, **changes: Any) -> Files:
    return {**files, CONFIG_NAME: json.dumps({**json.loads(files[CONFIG_NAME]), **changes}).encode()}


def lora_ref(server: InferenceServer, files: Files, name: str = "lora") -> dict[str, Any]:
    return server.put(f"{name}.zip", pack(files), type="lora", basis_fingerprint=None)


def test_a_lora_is_found_to_be_one(server: InferenceServer, files: Files) -> None:
    status, found = inspect(server, files)
    basis = server.runtime.basis
    assert status == 200
    # Per layer, A and B of q_proj (32 to 32) and up_proj (32 to 64).
    assert found == {
        "type": "lora",
        "rank": 4,
        "parameters": 2 * 4 * (32 + 32 + 32 + 64),
        "target_modules": ["q_proj", "up_proj"],
        "base_fingerprint": basis.base_fingerprint,
        "basis_fingerprint": None,
        "warnings": [],
    }
    _, found = inspect(server, configured(files, base_model_name_or_path="meta-llama/Other"))
    (warning,) = found["warnings"]
    assert "its base is 'meta-llama/Other', not 'tiny'" in warning
    assert inspect(server, configured(files, base_model_name_or_path="owner/tiny"))[1]["warnings"] == []


def test_an_adapter_of_the_basis_is_asked_its_canary(server: InferenceServer) -> None:
    runtime = server.runtime
    row = 0.2 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(1))
    adapter = Adapter.from_row(row, runtime.basis, rank=8, modules={"q_proj", "o_proj"}, base="tiny")
    sung = replace(adapter, canary=canary.compute(runtime, adapter))
    for one in (adapter, sung):
        status, found = inspect(server, one.files())
        assert (status, found["type"], found["rank"]) == (200, "osora", 8)
        assert found["basis_fingerprint"] == runtime.basis.fingerprint
    louder = replace(sung, delta={name: delta + 1 for name, delta in sung.delta.items()})
    status, answer = inspect(server, louder.files())
    assert (status, answer["error"]["code"]) == (409, "canary_mismatch")
    status, answer = inspect(server, replace(adapter, basis_fingerprint="0" * 64).files())
    assert status == 409
    assert "0" * 64 in answer["error"]["message"]
    status, answer = inspect(server, replace(adapter, rank=4).files())
    assert status == 400
    assert "r is 4; its vectors have 8 values" in answer["error"]["message"]


def test_an_adapter_with_a_mix_is_asked_its_canary_and_answers(server: InferenceServer) -> None:
    runtime, largest = server.runtime, server.engine.mixes.bank.largest
    assert server.http.get("/bases").json()["data"][0]["largest_mix"] == largest
    length = runtime.basis.row_length + mix_length(runtime.basis.spans, 4)
    row = 0.2 * torch.randn(length, generator=torch.Generator().manual_seed(1))
    modules = {"q_proj", "o_proj"}
    plain, mixed = (
        Adapter.from_row(row if c else row[: runtime.basis.row_length], runtime.basis, rank=8, modules=modules,
                         base="tiny", mix=c)
        for c in (0, 4)
    )  # fmt: skip
    sung = replace(mixed, canary=canary.compute(runtime, mixed))
    status, found = inspect(server, sung.files())
    assert (status, found["parameters"]) == (200, mixed.parameters)
    assert mixed.parameters > plain.parameters
    louder = replace(sung, mix={name: 20 * C for name, C in sung.mix.items()})
    status, answer = inspect(server, louder.files())
    assert (status, answer["error"]["code"]) == (409, "canary_mismatch")
    refs = [server.put(name, one.to_zip()) for name, one in (("plain", plain), ("sung", sung))]
    texts = [server.text(adapter=ref) for ref in refs]
    assert server.text(adapter=refs[0]) == texts[0]
    assert server.text(adapter=refs[1], strength=0.0) == server.text()
    assert "adp-sung" in server.http.get("/adapters").json()["data"]
    server.http.post("/forget", json={"adapters": ["adp-sung"]}).raise_for_status()
    assert server.text() == server.text(adapter=refs[1], strength=0.0)


def test_a_mix_that_the_server_has_no_room_for_is_refused_with_the_setting(server: InferenceServer) -> None:
    basis = server.runtime.basis
    bank = server.engine.mixes.bank
    row = torch.zeros(basis.row_length + mix_length(basis.spans, 8))
    adapter = Adapter.from_row(row, basis, rank=8, modules={"q_proj"}, base="tiny", mix=8)
    largest, bank.largest = bank.largest, 7
    try:
        status, answer = inspect(server, adapter.files())
    finally:
        bank.largest = largest
    assert status == 400
    assert "the adapter's mix is 8; this server has room for mixes of 7 at most" in answer["error"]["message"]
    assert "OSORA_INFERENCE_MIX" in answer["error"]["next_action"]


def test_values_that_are_no_numbers_reach_nobody(server: InferenceServer, files: Files) -> None:
    before = server.text()
    tensors = load(files[WEIGHTS_NAME])
    for value in (float("nan"), float("inf"), 1e25):
        broken = {name: torch.full_like(tensor, value) for name, tensor in tensors.items()}
        status, answer = inspect(server, {**files, WEIGHTS_NAME: save(broken)})
        assert status == 400
        assert "not a number" in answer["error"]["message"] or "not numbers" in answer["error"]["message"]
    assert server.text() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "LOHA"}, "that of a LOHA adapter"),
        ({"use_dora": True}, "use_dora is True"),
        ({"r": 3}, "A of rank 4 and B of rank 4"),
        ({"rank_pattern": {"(x+)+y": 4}}, "regular expression"),
    ],
)
def test_what_is_no_plain_lora_is_refused_with_the_reason(
    server: InferenceServer, files: Files, changes: dict[str, Any], said: str
) -> None:
    status, answer = inspect(server, configured(files, **changes))
    assert status == 400
    assert said in answer["error"]["message"]


def test_a_rank_that_the_server_has_no_room_for_is_refused(server: InferenceServer, folder: Path) -> None:
    base = server.runtime.model.name_or_path
    large = make_lora(base, folder / "large", r=257, target_modules=["q_proj"])
    files = {name: (large / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)}
    status, answer = inspect(server, files)
    assert status == 400
    assert "rank is 257; this server has room for ranks of 256" in answer["error"]["message"]
    assert "OSORA_INFERENCE_LORA_RANKS" in answer["error"]["next_action"]
    error = server.error(400, adapter=lora_ref(server, files))
    assert "rank is 257" in error["message"]


def test_a_lora_says_what_peft_says_and_strength_scales_it(server: InferenceServer, files: Files, folder: Path) -> None:
    ref = lora_ref(server, files)
    runtime = server.runtime
    prompt = Renderer(runtime.tokenizer, runtime.max_length).encode("help the customer")
    tokens, _ = peft_answer(runtime.model.name_or_path, folder, prompt, 8)
    stops = [index for index, token in enumerate(tokens) if token in runtime.eos_ids]
    expected = runtime.tokenizer.decode(tokens[: stops[0]] if stops else tokens, skip_special_tokens=True)
    bare = server.text()
    assert server.text(adapter=ref) == expected != bare
    assert server.text(adapter=ref, strength=0.0) == bare
    doubled = configured(files, lora_alpha=16)
    assert server.text(adapter=ref, strength=2.0) == server.text(adapter=lora_ref(server, doubled, "doubled"))
    error = server.error(400, adapter=ref, strength=1e38)
    assert error["param"] == "strength"
    # Beside an adapter of the basis.
    both = [server.publish("a", seed=1), ref]
    alone = [server.text(adapter=one) for one in both]
    assert [server.text(adapter=one) for one in both] == alone


def test_a_server_that_finds_no_room_in_time_says_so(
    server: InferenceServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.imports._SECONDS", 0.2)
    server.steps.hold()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask)
        assert server.steps.held.wait(60)
        status, found = inspect(server, files)
        server.steps.go.set()
        assert asked.result().status_code == 200
    assert (status, found["error"]["code"]) == (503, "overloaded")
    assert "no room" in found["error"]["message"]
    assert server.text()


def test_other_bytes_than_those_named_are_refused(server: InferenceServer, files: Files) -> None:
    ref = lora_ref(server, files)
    lora_ref(server, configured(files, lora_alpha=1))  # in the same place
    assert server.error(502, adapter=ref)["code"] == "corrupt_artifact"
    other = {**lora_ref(server, files), "base_fingerprint": "0" * 64}
    assert server.error(409, adapter=other)["code"] == "identity_mismatch"


def test_a_lora_is_exported_merged(served_runtime: Runtime, files: Files, tmp_path: Path) -> None:
    data = pack(files)
    ref = AdapterRef(
        id="adp-1", name="a", version=1, object_key="k", type="lora", sha256=hashlib.sha256(data).hexdigest(),
        base_fingerprint=served_runtime.basis.base_fingerprint, basis_fingerprint=None,
    )  # fmt: skip
    exporter = Exporter(lambda _: data, {"tiny": str(served_runtime.model.name_or_path)}, Scratch(tmp_path))
    made = exporter.make(served_runtime, ExportRequest(base="tiny", adapter=ref, format="merged"))
    try:
        assert made.stat().st_size > served_runtime.bytes
    finally:
        made.unlink()
