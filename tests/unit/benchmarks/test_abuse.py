"""What an attack's figures come to: each target is broken by what breaks it, and by nothing else."""

import math
from collections.abc import Callable

import pytest

from benchmarks.abuse.healthy import Seen
from benchmarks.abuse.verdict import COLUMNS, Trial, judge, quantile
from benchmarks.report import Report


def _trial() -> Trial:
    """An attack that nobody notices."""
    return Trial(
        "harmless",
        quiet=Seen(seconds=10, gets=[0.1] * 20, tokens=1000, pause=0.1, starts=[0.5]),
        during=Seen(seconds=10, gets=[0.2] * 20, tokens=900, pause=0.3, starts=[1.0]),
        before={"api": 100.0, "worker": 500.0},
        peak={"api": 300.0, "worker": 500.0},
        after={"api": 105.0, "worker": 500.0},
    )


def _slow(trial: Trial) -> None:
    trial.during.gets += [0.5] * 5


def _very_slow(trial: Trial) -> None:
    trial.quiet.gets = [0.5] * 20
    trial.during.gets = [1.2] * 20


def _thin(trial: Trial) -> None:
    trial.during.tokens = 600


def _halting(trial: Trial) -> None:
    trial.during.pause = 0.6


def _late(trial: Trial) -> None:
    trial.during.starts.append(11.0)


def _fat(trial: Trial) -> None:
    trial.after["api"] = 111.0


def _failing(trial: Trial) -> None:
    trial.during.failures.append("GET /jobs: 503")


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (_slow, "ratio"),
        (_very_slow, "get"),
        (_thin, "stream"),
        (_halting, "pause"),
        (_late, "start"),
        (_fat, "memory"),
        (_failing, "failures"),
    ],
)
def test_each_target_is_missed_by_what_breaks_it(change: Callable[[Trial], None], broken: str) -> None:
    harmful = _trial()
    change(harmful)
    assert _trial().missed() == []
    assert harmful.missed() == [broken]
    report = Report("cpu", COLUMNS)
    report.add(**harmful.row())
    assert not judge(report, [_trial(), harmful])
    assert [target["met"] for target in report.targets].count(False) == 1
    (missed,) = (target for target in report.targets if not target["met"])
    assert "1 miss it" in missed["name"]


def test_windows_join_to_one() -> None:
    seen = Seen(seconds=2, gets=[0.1], tokens=20, pause=0.4)
    seen.join(Seen(seconds=3, gets=[0.3], tokens=40, pause=0.2, failures=["500"]))
    assert (seen.seconds, seen.gets, seen.tokens, seen.pause, seen.failures) == (5, [0.1, 0.3], 60, 0.4, ["500"])
    assert quantile(seen.gets, 0.95) == 0.3
    assert math.isnan(quantile([], 0.95))
