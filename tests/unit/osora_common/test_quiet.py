"""What third parties warn of, and nobody here can act on, is in no program's log."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("program", ["inference", "worker"])
def test_a_program_says_nothing_of_torchao(program: str) -> None:
    pytest.importorskip("torchao")
    code = f"import {program}, transformers.quantizers, torchao"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
