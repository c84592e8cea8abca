"""Whether a tenant notices that another one attacks the service: each attack, beside a tenant that goes on working.

    python -m benchmarks.abuse
    python -m benchmarks.abuse --only watchers --only "half bodies" --json abuse.json
    python -m benchmarks.abuse --url https://osora.example.com --key osk-… --attacker-key osk-…

The service is `osora serve` on a data directory of its own, with its default settings, unless `--url` names another.
The healthy tenant asks for its list of jobs ten times a second, streams one answer after the other, and trains one
small job after the other. The attacker is a process of its own, of the lowest priority, because it would not be on this
machine.

Quiet and attack take turns, `--rounds` times, `--seconds` each, and ratios are of the sums: what else the machine does
is in both. What happens in the second after an attack counts as its doing, too. Memory is looked at before, while it
lasts, and once it is back within a tenth, a minute later at the latest. The attack named `nothing` does nothing: what
differs there is noise, and it is not judged.

The other parts: `slow-clients` holds 2,000 of them beside a healthy one, `requests` sends 50,000 and `cut-uploads`
breaks 1,000 uploads off; of these two the first tenth is the warm-up, and what grows from there on counts.

Exit code 0: every target was met, in every attack.
"""

import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.abuse import endurance
from benchmarks.abuse.attacks import ATTACKS
from benchmarks.abuse.healthy import Healthy
from benchmarks.abuse.place import Memory, Place, own_place, settled
from benchmarks.abuse.striking import Striker
from benchmarks.abuse.verdict import COLUMNS, Trial, judge
from benchmarks.report import Report, parser

BASE = "osora-tiny"
_WARM_SECONDS = 5.0
_ECHO_SECONDS = 1.0


def main() -> None:
    """The command."""
    asked = _options().parse_args()
    with _place(asked) as place, Memory(place.pid) as memory:
        if asked.part == "attacks":
            met = attacks(asked, place, memory)
        else:
            met = endurance.PARTS[asked.part](asked, place, memory)
    sys.exit(not met)


def attacks(asked: Namespace, place: Place, memory: Memory) -> bool:
    """Every attack that was asked for; whether the healthy tenant came to no harm."""
    report = Report(asked.device, COLUMNS)
    trials = []
    with Healthy(place.url, place.healthy_key, asked.base) as healthy:
        time.sleep(min(_WARM_SECONDS, asked.settle))
        for name in asked.only or ATTACKS:
            with report.guard(attack=name):
                trial = _try(name, asked, place, memory, healthy)
                report.add(**trial.row())
                trials.append(trial)
    judged = [trial for trial in trials if trial.attack != "nothing"]
    met = judge(report, judged) if judged else True
    report.write(asked.json)
    return met and len(trials) == len(report.rows)


def _try(name: str, asked: Namespace, place: Place, memory: Memory, healthy: Healthy) -> Trial:
    trial = Trial(name)
    with Striker(name, place.url, place.attacker_key, asked.base) as striker:
        trial.before = memory.now()
        memory.peaks()
        for _ in range(asked.rounds):
            healthy.seen()
            time.sleep(asked.seconds)
            trial.quiet.join(healthy.seen())
            striker.go()
            time.sleep(asked.seconds)
            trial.during.join(healthy.seen())
            striker.stop()
            time.sleep(_ECHO_SECONDS)
            echo = healthy.seen()
            trial.during.pause = max(trial.during.pause, echo.pause)
            trial.during.failures += echo.failures
        trial.answers = dict(striker.answers)
    trial.peak = memory.peaks()
    deadline = time.monotonic() + asked.settle
    while not settled(trial.before, memory.now()) and time.monotonic() < deadline:
        time.sleep(min(1.0, asked.settle))
    trial.after = memory.now()
    return trial


@contextmanager
def _place(asked: Namespace) -> Iterator[Place]:
    if asked.url is not None:
        yield Place(asked.url, asked.key, asked.attacker_key, asked.pid, None)
        return
    with tempfile.TemporaryDirectory(prefix="osora-abuse-") as folder, own_place(Path(folder)) as place:
        yield place


def _options() -> ArgumentParser:
    options = parser(__doc__, devices=("cpu",))
    options.add_argument(
        "part", nargs="?", choices=("attacks", *endurance.PARTS), default="attacks", help="default: %(default)s"
    )
    options.add_argument("--only", action="append", metavar="NAME", choices=ATTACKS, help="one attack; may be repeated")
    options.add_argument("--seconds", type=float, default=5.0, help="of each turn (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=2, help="turns of each kind (default: %(default)s)")
    options.add_argument("--settle", type=float, default=60.0, help="seconds for memory to come back (default: 60)")
    options.add_argument("--count", type=int, help="of clients, requests or uploads, in the parts that have them")
    options.add_argument("--base", default=BASE, help="that both tenants use (default: %(default)s)")
    options.add_argument("--url", help="a service that is there (default: one of our own, for the run)")
    options.add_argument("--key", help="the healthy tenant's key there")
    options.add_argument("--attacker-key", help="another tenant's key there")
    options.add_argument("--pid", type=int, help="of its `osora serve`, if it is on this machine: to see its memory")
    return options


if __name__ == "__main__":
    main()
