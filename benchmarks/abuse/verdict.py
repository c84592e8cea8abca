"""What is asked of a service under attack, and whether it was so."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.abuse.healthy import Seen
from benchmarks.abuse.place import ROLES, settled
from benchmarks.report import Report

GET_RATIO, GET_SECONDS, STREAM_RATIO, PAUSE_SECONDS, START_SECONDS, MEMORY_RATIO = 3.0, 1.0, 0.7, 0.5, 10.0, 1.1
COLUMNS = {
    "attack": "20",
    "get_p50": "7.3f",
    "get_p50_during": "14.3f",
    "get_p95": "7.3f",
    "get_p95_during": "14.3f",
    "stream": "6.2f",
    "pause": "6.2f",
    "start": "6.1f",
    "failures": "8d",
    "api_mib": "14",
    "inference_mib": "14",
    "worker_mib": "14",
    "missed": "24",
}


@dataclass
class Trial:
    """An attack, what the healthy tenant saw without it and during it, and what memory did."""

    attack: str
    quiet: Seen = field(default_factory=Seen)
    during: Seen = field(default_factory=Seen)
    before: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    """What the attacker was told, and how often."""

    @property
    def get_ratio(self) -> float:
        """p95 of GET /jobs, against the quiet one."""
        return quantile(self.during.gets, 0.95) / max(quantile(self.quiet.gets, 0.95), 1e-9)

    @property
    def stream_ratio(self) -> float:
        """Tokens a second, against the quiet ones."""
        return _rate(self.during) / max(_rate(self.quiet), 1e-9)

    @property
    def start_delay(self) -> float:
        """How much longer its slowest job waited than without the attack."""
        return max(0.0, max(self.during.starts, default=0.0) - max(self.quiet.starts, default=0.0))

    @property
    def memory_ratio(self) -> float:
        """What it came to, at last, of the process that is least back to where it was."""
        return max((self.after.get(role, 0.0) / had for role, had in self.before.items() if had), default=0.0)

    def missed(self) -> list[str]:
        """The targets that this attack breaks, in a word each."""
        broken = {
            "ratio": self.get_ratio > GET_RATIO,
            "get": quantile(self.during.gets, 0.95) > GET_SECONDS,
            "stream": self.stream_ratio < STREAM_RATIO,
            "pause": self.during.pause > PAUSE_SECONDS,
            "start": self.start_delay > START_SECONDS,
            "memory": not settled(self.before, self.after),
            "failures": bool(self.during.failures),
        }
        return [name for name, is_broken in broken.items() if is_broken]

    def row(self) -> dict[str, Any]:
        """For the table and the JSON."""
        memory = {
            f"{role}_mib": "/".join(f"{of.get(role, 0):.0f}" for of in (self.before, self.peak, self.after))
            for role in ROLES
            if role in self.before
        }
        return {
            "attack": self.attack,
            "get_p50": quantile(self.quiet.gets, 0.5),
            "get_p50_during": quantile(self.during.gets, 0.5),
            "get_p95": quantile(self.quiet.gets, 0.95),
            "get_p95_during": quantile(self.during.gets, 0.95),
            "tokens_per_second": _rate(self.quiet),
            "tokens_per_second_during": _rate(self.during),
            "stream": self.stream_ratio,
            "pause_quiet": self.quiet.pause,
            "pause": self.during.pause,
            "start_quiet": max(self.quiet.starts, default=None),
            "start": max(self.during.starts, default=None),
            "failures": len(self.during.failures),
            **memory,
            "missed": " ".join(self.missed()) or "-",
            "answers": self.answers,
            "what_failed": self.during.failures[:5],
            "what_was_refused": self.during.refusals[:5],
        }


def judge(report: Report, trials: list[Trial]) -> bool:
    """A target's line for each thing that is asked, of the attack that is worst for it; whether all are met."""
    measures = (
        ("GET p95 over its quiet value", "x", f"<= {GET_RATIO:g}", "ratio", lambda t: t.get_ratio),
        ("GET p95", "s", f"<= {GET_SECONDS:g}", "get", lambda t: quantile(t.during.gets, 0.95)),
        ("tokens per second over the quiet ones", "x", f">= {STREAM_RATIO:g}", "stream", lambda t: -t.stream_ratio),
        ("longest pause of a stream", "s", f"<= {PAUSE_SECONDS:g}", "pause", lambda t: t.during.pause),
        ("delay of a job's start", "s", f"<= {START_SECONDS:g}", "start", lambda t: t.start_delay),
        ("memory a minute later", "x", f"<= {MEMORY_RATIO:g}", "memory", lambda t: t.memory_ratio),
        ("answers of 5xx", "", "0", "failures", lambda t: float(len(t.during.failures))),
    )
    for what, unit, target, word, measure in measures:
        worst = max(trials, key=measure)
        missed = sum(word in trial.missed() for trial in trials)
        name = f"{what}, worst of {len(trials)} attacks ({worst.attack}; {missed} miss it)"
        report.target(name, abs(measure(worst)), unit, target, missed == 0)
    return not any(trial.missed() for trial in trials)


def quantile(values: list[float], share: float) -> float:
    """The value that so many of them are at most; nan of none."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))] if ordered else float("nan")


def _rate(seen: Seen) -> float:
    return seen.tokens / seen.seconds if seen.seconds else 0.0
