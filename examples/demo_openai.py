"""What `make demo-openai` runs: the demo's service, and a program that knows nothing but OpenAI's client."""

import os
import re
import subprocess
import sys
from pathlib import Path

from demo import DATA_DIR, TARGET, DemoFailedError, Stages, as_a_program, console, log_tail, service
from rich.syntax import Syntax

from osora import OsoraError

PROGRAM = Path(__file__).parent / "tickets_openai.py"


def run() -> float:
    """Start the service, run the program against it; returns the share of tickets that the adapter gets right."""
    stage = Stages()
    with service(stage) as osora, stage("Running the program"):
        key = (DATA_DIR / "local.key").read_text().strip()
        env = {**os.environ, "OPENAI_BASE_URL": f"{osora.url}/v1", "OPENAI_API_KEY": key}
        # -I: what it imports is installed; nothing of this repository is.
        program = subprocess.Popen([sys.executable, "-I", PROGRAM], env=env, stdout=subprocess.PIPE, text=True)
        with program:
            assert program.stdout is not None
            last = ""
            for last in program.stdout:
                console.print(f"  {last.rstrip()}", markup=False, soft_wrap=True)
        if program.returncode:
            raise DemoFailedError(f"the program ended with {program.returncode}")
    console.print("\nSeconds: " + " · ".join(f"{name} {took:.1f}" for name, took in stage.seconds.items()))
    share = re.search(r"answers (\d+)%", last)
    if share is None:
        raise DemoFailedError(f"the program ended with {last!r}")
    return int(share[1]) / 100


def main() -> int:
    try:
        share = run()
        if share < TARGET:
            raise DemoFailedError(f"the share of right answers, {share:.0%}, is below {TARGET:.0%}")
    except (DemoFailedError, OsoraError) as error:
        console.print(f"\n{log_tail()}\n\nThe demo failed: {error}", markup=False, soft_wrap=True)
        return 1
    console.print(f"\n[bold]The program, examples/{PROGRAM.name}[/bold]\n")
    text = PROGRAM.read_text(encoding="utf-8")
    console.print(Syntax(text, "python", background_color="default").highlight(text), soft_wrap=True)  # to be copied
    console.print(
        "Next, the same service for a program of yours:\n"
        f"  export OSORA_DATA_DIR={DATA_DIR}\n"
        "  .venv/bin/osora serve    (prints OPENAI_BASE_URL and OPENAI_API_KEY)\n"
        "docs/migrate-from-openai.md has the way from OpenAI, step by step.",
        markup=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    as_a_program(main)
