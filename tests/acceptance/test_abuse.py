"""Attacks in small, against the running installation."""

import json
from pathlib import Path

import psutil
import pytest

from benchmarks.abuse import __main__ as abuse
from benchmarks.abuse.place import stranger
from tests.acceptance.conftest import Service


@pytest.mark.timeout(240)
def test_a_tenant_goes_on_working_while_another_one_attacks(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How fast is for the benchmark to say: here is a machine that others keep busy."""
    path = tmp_path / "abuse.json"
    keys = [
        *("--key", stranger(service.url, service.key, "healthy")),
        *("--attacker-key", stranger(service.url, service.key, "attacker")),
    ]
    turns = ["--seconds", "3", "--rounds", "1", "--settle", "0", "--only", "stop strings", "--only", "half bodies"]
    monkeypatch.setattr(
        "sys.argv", ["abuse", "--url", service.url, "--pid", str(service.pid), *keys, *turns, "--json", str(path)]
    )
    with pytest.raises(SystemExit):  # by the targets
        abuse.main()
    written = json.loads(path.read_text())
    assert [row["attack"] for row in written["rows"]] == ["stop strings", "half bodies"]
    for row in written["rows"]:
        assert row["failures"] == 0, row["what_failed"]
        assert row["tokens_per_second_during"] > 0
        assert row["get_p95_during"] > 0
        assert row["inference_mib"]
    assert set(written["rows"][0]["answers"]) <= {"400", "413", "429", "cut off"}
    assert len(written["targets"]) == 7


def test_training_leaves_the_processor_to_answers(service: Service) -> None:
    children = {child.cmdline()[-1]: child.nice() for child in psutil.Process(service.pid).children()}
    assert children["worker"] == children["inference"] + 5 == children["api"] + 5
