"""Temporary files are private, and go with their process however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from osora_common.scratch import Scratch

PROGRAM = """
import sys, time
from pathlib import Path
from osora_common.scratch import Scratch

scratch = Scratch(Path(sys.argv[1]))
(scratch.folder / "upload-1").write_text("somebody's rows")
print(scratch.folder, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_leaves_is_swept_and_what_a_live_one_has_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive,
    ):
        assert killed.stdout is not None
        assert alive.stdout is not None
        left, kept = Path(killed.stdout.readline().strip()), Path(alive.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
        assert (left / "upload-1").exists()
        mine = Scratch(tmp_path)
        assert mine.folder.is_dir()
        assert not left.exists()
        assert (kept / "upload-1").exists()
        for folder in (tmp_path / "tmp", mine.folder, kept):
            assert folder.stat().st_mode & 0o777 == 0o700
        mine.close()
        alive.kill()
        alive.wait(60)
    Scratch(tmp_path).folder  # noqa: B018  (that is what sweeps)
    assert len(os.listdir(tmp_path / "tmp")) == 2  # its own, and its lock
