"""The demo's manners, over stand-ins for the programs; what it demonstrates is an acceptance test."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import shadows

from .conftest import STUBS, Family

DEMO = Path(__file__).parents[3] / "examples" / "demo.py"


@pytest.fixture
def start(tmp_path: Path, family: Family) -> Callable[..., subprocess.Popen[str]]:
    def starter(**stub: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(STUBS), **family.mark, **stub}
        return subprocess.Popen(
            [sys.executable, str(DEMO)],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return starter


def test_a_stage_that_fails_is_exit_code_1_and_nothing_is_left(
    start: Callable[..., subprocess.Popen[str]], family: Family, tmp_path: Path
) -> None:
    shadows.cast(tmp_path)
    demo = start()  # the stand-in for the API takes no files
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "The demo failed" in output
    assert "worker ready" in output  # the logs' ends
    assert not family.living()


def test_it_shows_right_and_wrong_answers_in_proportion() -> None:
    fair_sample = runpy.run_path(str(DEMO))["fair_sample"]
    right = [index % 4 != 1 for index in range(100)]
    drawn = fair_sample(right, 4)
    assert [right[place] for place in drawn].count(True) == 3
    assert len(set(drawn)) == 4
    assert fair_sample(right, 4) == drawn
    assert len(fair_sample([False] * 9, 4)) == 4


def test_a_service_that_does_not_start(start: Callable[..., subprocess.Popen[str]], family: Family) -> None:
    demo = start(STUB_BROKEN="inference")
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "the service did not start" in output
    assert "inference cannot start: the reason" in output
    assert not family.living()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
@pytest.mark.parametrize("moment", ["Starting the service", "broker  ", "worker"])
def test_nothing_is_left_whenever_it_is_interrupted(
    start: Callable[..., subprocess.Popen[str]], family: Family, moment: str, number: signal.Signals
) -> None:
    demo = start(STUB_SLOW_INFERENCE="1")
    assert demo.stdout is not None
    for line in demo.stdout:
        if moment in line:
            break
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert "Traceback" not in output
    assert family.gone(60 if number == signal.SIGKILL else 0)
