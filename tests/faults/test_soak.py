"""A minute of `benchmarks.soak` in small: workers killed at any moment cost time, and nothing else."""

import pytest

from benchmarks import soak
from benchmarks.report import Report
from benchmarks.soak_installation import Options


@pytest.mark.timeout(900)  # idle cores need about 40 seconds; it gives up by itself once nothing moves
def test_nothing_is_lost_doubled_or_wrong_when_workers_and_broker_die_at_random() -> None:
    report = Report("cpu", soak.COLUMNS)
    soak.run(Options(jobs=10, workers=2, kill_seconds=4.0), report)
    events = [row["event"] for row in report.rows]
    assert "kill" in events
    assert "broker" in events
    harmless = {target["name"]: target["value"] for target in report.targets if target["target"] == "0"}
    assert len(harmless) == 7
    assert harmless == dict.fromkeys(harmless, 0)
    (waste,) = (target for target in report.targets if target["name"] == "wasted steps")
    assert waste["met"], waste
