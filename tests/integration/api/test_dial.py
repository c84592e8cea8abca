"""The dial through the API: presets of bases, what a dry run says of them, and what is refused."""

from typing import Any

import httpx
import pytest

from osora_common.presets import DEFAULT_PRESET, PRESETS
from registry.context import Registry
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.support.jobs import upload

SPANS = {"q_proj": [[128, 300], [64, 200]], "v_proj": [[32, 100]]}
# Of each weight: the values of s, of o, and of C.
SIZES = {
    "small": (128 + 300) + (64 + 200) + (32 + 100),
    "balanced": (128 + 300 + 16**2) + (64 + 200 + 16**2) + (32 + 100 + 16**2),
    "quality": (128 + 300 + 64**2) + (64 + 200 + 64**2) + (32 + 100 + 32**2),
}


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    for fake in inference.values():
        fake.spans, fake.largest_mix = SPANS, 32
    return ",".join(inference)


@pytest.fixture
def ask(client: httpx.Client, registry: Registry, principal: Principal) -> Any:
    file = upload(registry, principal).id

    def run(path: str = "/jobs", **osora: Any) -> httpx.Response:
        return client.post(path, json={"model": "osora-tiny", "training_file": file, "osora": osora})

    return run


def test_bases_say_what_a_preset_is_on_them(client: httpx.Client, inference: dict[str, FakeInference]) -> None:
    (base,) = client.get("/bases").json()["data"]
    found = {preset["preset"]: preset for preset in base["presets"]}
    assert {name: preset["parameters"] for name, preset in found.items()} == SIZES
    assert {name: preset["adapter_bytes"] for name, preset in found.items()} == {
        name: 4 * size for name, size in SIZES.items()
    }
    assert {name: preset["available"] for name, preset in found.items()} == {
        "small": True, "balanced": True, "quality": False,
    }  # fmt: skip
    assert found["balanced"]["learning_rate"] == PRESETS["balanced"].learning_rate


def test_presets_of_a_base_that_nobody_holds(client: httpx.Client, inference: dict[str, FakeInference]) -> None:
    for fake in inference.values():
        fake.bases = []
    (base,) = client.get("/bases").json()["data"]
    assert [(preset["preset"], preset["parameters"], preset["available"]) for preset in base["presets"]] == [
        (name, None, True) for name in PRESETS
    ]


@pytest.mark.parametrize("path", ["/jobs", "/v1/fine_tuning/jobs"])
def test_a_job_shows_its_point(client: httpx.Client, ask: Any, path: str) -> None:
    made = ask(path, preset="balanced", mix=8).json()
    assert made["osora"]["points"] == [{"preset": "balanced", "rank": 128, "mix": 8}]
    assert made["osora"]["settings"] == {"preset": "balanced", "mix": 8}
    assert client.get(f"{path}/{made['id']}").json()["osora"]["points"] == made["osora"]["points"]
    by_default = ask(path).json()["osora"]["points"]
    assert [point["preset"] for point in by_default] == [DEFAULT_PRESET]


def test_a_dry_run_sizes_each_point(ask: Any) -> None:
    told = ask("/jobs?dry_run=true", preset=["small", "balanced"]).json()
    assert [(point["preset"], point["parameters"]) for point in told["points"]] == [
        ("small", SIZES["small"]), ("balanced", SIZES["balanced"]),
    ]  # fmt: skip
    assert told["adapter_bytes"] == 4 * SIZES["balanced"]
    small, balanced = told["osora"]["sweep"]
    assert (small["rank"], small["mix"], small["learning_rate"]) == (128, 0, PRESETS["small"].learning_rate)
    assert (balanced["mix"], balanced["learning_rate"]) == (16, PRESETS["balanced"].learning_rate)
    assert any(words.startswith("A sweep of 2 takes longer") for words in told["warnings"])
    one = ask("/jobs?dry_run=true", preset="balanced", learning_rate=0.5, mix_rate=0.3).json()["osora"]
    assert (one["preset"], one["rank"], one["mix"], one["learning_rate"], one["mix_rate"]) == (
        "balanced", 128, 16, 0.5, 0.3,
    )  # fmt: skip


def test_a_multiplier_is_of_the_presets_own_rate(
    client: httpx.Client, registry: Registry, principal: Principal
) -> None:
    job = {"model": "osora-tiny", "training_file": upload(registry, principal).id, "osora": {"preset": "balanced"}}
    told = client.post("/jobs?dry_run=true", json={**job, "hyperparameters": {"learning_rate_multiplier": 3}}).json()
    assert told["osora"]["learning_rate"] == pytest.approx(3 * PRESETS["balanced"].learning_rate)
    assert told["hyperparameters"]["learning_rate_multiplier"] == pytest.approx(3)


def test_what_the_servers_have_no_room_for(client: httpx.Client, ask: Any) -> None:
    for osora, param in (({"preset": "quality"}, "osora.preset"), ({"mix": 33}, "osora.mix")):
        for path in ("/jobs", "/jobs?dry_run=true"):
            error = error_of(ask(path, **osora), 400)
            assert (error["param"], error["code"]) == (param, "invalid_value")
            assert error["osora"]["next_action"] if "osora" in error else error["next_action"]
    assert client.get("/jobs").json()["data"] == []
