"""Each program runs through on something tiny, and says of every target whether it was met."""

from pathlib import Path

import pytest

from benchmarks import basis, fusion, lora_rows, names, serving, sweep, training
from benchmarks.report import Report
from osora_core.basis import BasisCache
from osora_core.runtime import Runtime
from osora_core.tuner import OsoraTunerLinear
from tests.support.tiny_base import make_base
from tests.support.tiny_models import make_model
from tests.unit.benchmarks.conftest import Run

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


def test_serving(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(serving.BATCHES, "cpu", (1, 4))
    monkeypatch.setattr(serving, "DECODE_STEPS", 4)
    monkeypatch.setattr(serving, "CLIENTS", 4)
    written = run(
        serving, "--base", make_base(tmp_path / "base"), "--rank", 8, "--parts", "decoding", "served", "registered",
        "--registered", 40, "--requests", 8, "--rounds", 1, "--repeats", 1, "--threads", 1,
    )  # fmt: skip
    assert not any("failed" in row for row in written["rows"])
    rows = {(row["case"], row.get("registered"), row.get("batch")): row for row in written["rows"]}
    assert rows["a full bank", 40, 4]["adapters"] == 4
    assert rows["adapters of rank 8", None, 4]["ttft_p95_ms"] > 0
    values = {target["name"]: target["value"] for target in written["targets"]}
    wrong = next(value for name, value in values.items() if name.startswith("wrong answers among"))
    assert wrong == 0
    assert values["40 registered against one"] > 0
    assert values["32 adapters against transformers' static generate"] is None  # was not asked for


def test_lora_rows(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_rows, "STEPS", 4)
    written = run(
        lora_rows, "--base", make_base(tmp_path / "base"), "--rows", 4, "--rank", 3, "--lora-ranks", 9, "--repeats", 1,
        "--threads", 1,
    )  # fmt: skip
    assert {(row["case"], row.get("loras")) for row in written["rows"]} >= {
        ("adapters of the basis", 0),
        ("LoRAs of rank 3", 1),
        ("LoRAs of rank 3", 3),
        ("LoRAs, adapters, bare base", 2),
    }
    values = {target["name"]: target["value"] for target in written["targets"]}
    assert values["answers that company changes"] == 0
    assert values["bare base beside idle LoRAs"] > 0


def test_basis(run: Run) -> None:
    written = run(basis, "--size", 160, "--ways", "gram", "eigh")
    assert {row["way"] for row in written["rows"]} == {"gram", "eigh"}
    assert {row["spectrum"] for row in written["rows"]} == {"gaussian", "power", "exponential"}
    met = {target["name"]: target["met"] for target in written["targets"]}
    assert met == {
        "error of singular values": True,
        "excess of reconstruction": True,
        "basis of Llama-8B, r=128": False,  # only a GPU can say
    }


def test_names(run: Run) -> None:
    written = run(names, "--adapters", 20, "--rounds", 20)
    assert [row["name"] for row in written["rows"]] == ["adapter's name", "alias of one", "alias of 2", "alias of 10"]
    assert written["rows"][0]["against"] == 1
    (target,) = written["targets"]
    assert target["value"] == written["rows"][1]["against"]


def test_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.SHAPES, "cpu", ((2, 8), (1, 4)))
    written = run(training, "--steps", 1)
    rows = {(row["method"], row["tokens"], row["checkpointing"]): row for row in written["rows"]}
    assert len(rows) == 3 * 2 * 2
    assert not any("failed" in row for row in written["rows"])
    for method in training.CONFIGS:
        assert rows[method, "2x8", True]["kept_gib"] < rows[method, "2x8", False]["kept_gib"]
    assert rows["osora r=128", "2x8", False]["kept_gib"] < rows["vera r=256", "2x8", False]["kept_gib"]
    assert [target["value"] for target in written["targets"]] == [None, None]  # only a GPU can say


def test_training_compares_with_lora_at_the_large_batch_without_checkpointing() -> None:
    report = Report("cpu", {})
    report.device = "cuda"
    for method, milliseconds, peak in (("osora r=128", 30.0, 8.0), ("lora r=16", 24.0, 10.0)):
        for checkpointing, factor in ((False, 1), (True, 7)):
            report.add(
                method=method, tokens="4x1024", checkpointing=checkpointing, milliseconds=factor * milliseconds,
                peak_gib=factor * peak,
            )  # fmt: skip
    training.targets(report)
    assert [(target["value"], target["met"]) for target in report.targets] == [(1.25, False), (0.8, True)]


def test_training_makes_its_random_basis_without_a_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora_core.basis.top_triplets", lambda *_: pytest.fail("an SVD"))
    from peft import get_peft_model

    from osora_core import OsoraConfig

    base = make_model()
    with training.random_basis(base, 8):
        model = get_peft_model(base, OsoraConfig(r=8, basis_rank=8))
    assert sum(isinstance(module, OsoraTunerLinear) for module in model.modules()) == 14


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_sweep(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(
        sweep, "load_runtime", lambda *_: Runtime.load("b", BasisCache(tmp_path), path=str(base), rank=8)
    )
    monkeypatch.setattr(sweep, "tickets", lambda *_: sweep.random_rows(8, 0, method))
    monkeypatch.setattr(sweep, "RANDOM_TOKENS", 8)
    base = make_base(tmp_path / "base")
    written = run(sweep, "--method", method, "--rows", 8, "--repeats", 1, "--epochs", 4, "--batch-size", 4)
    rows = {(row["case"], row["learning_rate"], row["sigma_rate"]): row for row in written["rows"]}
    alone = {key[1:]: row["loss"] for key, row in rows.items() if key[0] == "alone"}
    assert len(alone) == 6
    ((_, *chosen),) = [key for key in rows if key[0] == "sweep of 6"]
    assert rows["regret", *chosen]["loss"] == alone[tuple(chosen)] - min(alone.values()) >= 0
    (target,) = written["targets"]
    assert (target["name"], target["value"]) == ("sweep over single", rows["sweep of 6", *chosen]["ratio"])


def test_fusion(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Runtime.load("b", BasisCache(tmp_path), path=str(make_base(tmp_path / "base")), rank=16)
    monkeypatch.setattr(fusion, "load", lambda *_: base)
    monkeypatch.setattr(fusion, "VOCABULARY", 200)
    monkeypatch.setitem(fusion.CASES, "cpu", ((1, 1, 8), (3, 2, 8)))
    written = run(fusion, "--steps", 2, "--repeats", 1, "--alone", 2)
    assert [(row["case"], "failed" in row) for row in written["rows"]] == [("1 of 1x8", False), ("3 of 2x8", False)]
    fused = written["rows"][1]
    assert fused["apart"] < 1e-4
    assert fused["fused_finish"] > 0
    values = {target["name"]: target["value"] for target in written["targets"]}
    assert values.pop("the least gain of any case on cpu") == fused["speedup"]
    assert set(values.values()) == {None}  # cases that were not measured here


@pytest.mark.parametrize(("layers", "met"), [(32, True), (4, False)])
def test_fusion_meets_targets_of_a_gpu_with_the_whole_base_alone(layers: int, met: bool) -> None:
    report = Report("cpu", {})
    report.device = "cuda"
    for (jobs, rows, length), speedup in {**fusion.SPEED_TARGETS["cuda"], fusion.MANY: 5.0}.items():
        report.add(jobs=jobs, rows=rows, length=length, speedup=speedup)
    fusion.targets(report, layers)
    assert [target["met"] for target in report.targets if "cpu" not in target["name"]] == [met] * 4
