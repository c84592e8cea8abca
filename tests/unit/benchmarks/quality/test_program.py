"""The program goes on where it stopped, extends its grids, and tells of every target whether it was met."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import program
from benchmarks.quality.learned import Diverged, Learned, Score
from benchmarks.quality.methods import DEFAULT, named
from benchmarks.quality.ours import Osora
from benchmarks.quality.peers import Peft
from osora_core.training import JobSpec
from tests.support.tiny_base import make_base
from tests.unit.benchmarks.conftest import Run

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

Row = dict[str, Any]


@pytest.fixture
def arguments(tmp_path: Path, data: Path) -> list[Any]:
    base = make_base(tmp_path / "base")
    return ["--base", base, "--data", data, "--epochs", 2, "--batch-size", 8, "--rows", 12, "--seeds", 0, 1]


@pytest.fixture
def best_at(monkeypatch: pytest.MonkeyPatch) -> list[JobSpec]:
    """OSoRA learns nothing here, but is best at 0.3 and diverges above 0.5; returns what was trained."""
    trained: list[JobSpec] = []

    def learn(_self: Osora, _train: Any, _measured: Any, specs: list[JobSpec]) -> list[Learned | Diverged]:
        trained.extend(specs)
        return [
            Diverged("the loss became nan")
            if spec.learning_rate > 0.5
            else Learned(dict.fromkeys(("valid", "test"), Score(abs(spec.learning_rate - 0.3), 0.5)), 10, 100)
            for spec in specs
        ]

    monkeypatch.setattr(Osora, "learn", learn)
    return trained


def test_runs_resumes_and_summarises(
    run: Run, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments += ["--datasets", "banking77", "gsm8k", "--rates", 0.01, 0.1]
    ours = ("osora-8", "osora-8-s", "osora-8-o", "reference")
    first = run(program, *arguments, "--methods", *ours)
    assert not any("failed" in row for row in first["rows"])
    assert all(row["rows"] == 11 and row["base"] == "base" and row["dtype"] == "float32" for row in first["rows"])
    counts = {row["method"]: row["parameters"] for row in first["rows"] if "parameters" in row}
    assert counts["osora-8"] == counts["osora-8-s"] + counts["osora-8-o"]
    # What was run is not run again; new methods join it.
    monkeypatch.setattr(Osora, "learn", lambda *_: pytest.fail("trained again"))
    peers = ("lora-1", "vera-8", "pissa-2", "psoft-4", "ia3", "lora-xs-4", "full")
    second = run(program, *arguments, "--methods", *ours, *peers, "--plot", tmp_path / "plots")
    assert second["rows"][: len(first["rows"])] == first["rows"]
    assert not any("failed" in row for row in second["rows"])
    assert {row["method"] for row in second["rows"]} == {*ours, *peers}
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "quality-banking77.svg",
        "quality-gsm8k.svg",
    ]
    # And shown without training.
    monkeypatch.setattr(Peft, "learn", lambda *_: pytest.fail("trained again"))
    capsys.readouterr()
    third = run(program, "--base", arguments[1], "--seeds", 0, 1, "--methods", *ours, *peers)
    assert third["rows"] == second["rows"]
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + len(ours) + len(peers)
    assert "edge" not in "".join(table)


def test_goes_on_after_being_killed_between_batches(
    run: Run, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    learn, batches = Osora.learn, itertools.count()

    def fragile(self: Osora, train: Any, measured: Any, specs: list[JobSpec]) -> Any:
        if next(batches) == 2:
            raise Killed
        return learn(self, train, measured, specs)

    arguments += ["--datasets", "banking77", "--methods", "osora-8", "--rates", 0.01, 0.03, 0.1, "--at-once", 1]
    monkeypatch.setattr(Osora, "learn", fragile)
    with pytest.raises(Killed):
        run(program, *arguments)
    held = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["learning_rate"] for row in held] == [0.01, 0.03]
    written = run(program, *arguments)["rows"]
    assert written[:2] == held
    keys = [(row["learning_rate"], row["seed"]) for row in written]
    assert len(keys) == len(set(keys))


def test_extends_the_grid_until_the_best_is_inside(
    run: Run, arguments: list[Any], best_at: list[JobSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    written = run(program, *arguments, "--datasets", "gsm8k", "--methods", "osora-8")
    rates = [(row["learning_rate"], row["seed"], "diverged" in row) for row in written["rows"]]
    assert rates == [
        (0.01, 0, False), (0.03, 0, False), (0.1, 0, False), (0.3, 0, False), (1.0, 0, True), (0.3, 1, False),
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "osora-8: best at the edge of the grid, which goes on to 0.3\n" in said
    edges = next(target for target in written["targets"] if "edge" in target["name"])
    assert (edges["value"], edges["met"]) == (0, True)


def test_a_mix_has_a_rate_of_its_own_in_the_grid(run: Run, arguments: list[Any]) -> None:
    arguments += ["--datasets", "gsm8k", "--methods", "osora-8-mix-2", "--rates", 0.03]
    rows = run(program, *arguments)["rows"]
    assert not any("failed" in row for row in rows)
    best = rows[-1]  # with the second seed
    assert best["seed"] == 1
    for own, other in (("learning_rate", "mix_rate"), ("mix_rate", "learning_rate")):
        tried = [row[own] for row in rows if row["seed"] == 0 and row[other] == best[other]]
        assert min(tried) < best[own] < max(tried)


def test_begins_no_batch_after_its_time(
    run: Run, arguments: list[Any], best_at: list[JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments += ["--datasets", "gsm8k", "--methods", "osora-8", "--at-once", 1]
    monkeypatch.setattr("benchmarks.quality.sweep.time", type("Clock", (), {
        "monotonic": lambda: len(best_at), "perf_counter": time.perf_counter
    }))  # fmt: skip
    written = run(program, *arguments, "--seconds", 2)
    assert len(written["rows"]) == len(best_at) == 2
    assert next(target for target in written["targets"] if "edge" in target["name"])["met"] is False
    written = run(program, *arguments)
    assert len(written["rows"]) == len(best_at) == 6


def test_what_failed_is_told_and_tried_again(run: Run, arguments: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments += ["--datasets", "gsm8k", "--methods", "osora-8", "lora-1", "--seeds", 0, "--rates", 0.01]
    with monkeypatch.context() as patch:
        patch.setattr(Osora, "learn", lambda *_: 1 / 0)
        rows = run(program, *arguments)["rows"]
    assert [row["method"] for row in rows if "failed" in row] == ["osora-8"]
    rows = run(program, *arguments)["rows"]
    assert not any("failed" in row for row in rows)
    assert {row["method"] for row in rows} == {"osora-8", "lora-1"}


def test_every_method_of_the_table_has_a_name_of_its_own() -> None:
    methods = [named(name) for name in DEFAULT]
    assert len({method.label for method in methods}) == len(methods)
    with pytest.raises(ValueError, match="no method 'lora'"):
        named("lora")
