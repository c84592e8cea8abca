"""Points of the dial as people read them: of bases, of a forecast, of a job."""

from typing import Any

import pytest
from typer.testing import CliRunner

from osora.cli import app
from osora.cli.dial import point_words
from osora.cli.forecast import show_forecast
from tests.unit.osora.conftest import Answer, FakeService

SMALL = {"preset": "small", "rank": 128, "mix": 0, "parameters": 26624, "adapter_bytes": 106496}
BALANCED = {"preset": "balanced", "rank": 128, "mix": 16, "parameters": 40960, "adapter_bytes": 163840}
RESOLVED = {"rank": 128, "mix": 16, "learning_rate": 0.02}


def test_a_point_in_words() -> None:
    assert point_words(BALANCED) == "balanced: rank 128, mix 16; 40,960 values"
    assert point_words({"preset": None, "rank": 8, "mix": 0}) == "rank 8"


def test_bases_say_what_a_preset_is_on_them(service: FakeService) -> None:
    unknown = {**BALANCED, "parameters": None, "adapter_bytes": None, "available": False}
    bases = [{"name": "tiny", "loaded": True, "presets": [SMALL]}, {"name": "big", "presets": [unknown]}]
    service.on("GET", "/bases", Answer(body={"data": bases}))
    lines = CliRunner().invoke(app, ["bases"]).stdout.splitlines()
    assert [line.split() for line in lines if line.startswith(("tiny  small", "big "))][-2:] == [
        ["tiny", "small", "128", "26,624", "104.0", "KiB"],
        ["big", "balanced", "128", "16", "no", "room", "for", "its", "mix"],
    ]


@pytest.mark.parametrize(
    ("points", "lines"),
    [
        ([BALANCED], ["trains balanced: rank 128, mix 16; 40,960 values"]),
        (
            [SMALL, BALANCED],
            ["trains 1 small: rank 128; 26,624 values", "trains 2 balanced: rank 128, mix 16; 40,960 values"],
        ),
    ],
)
def test_a_forecast_says_what_is_trained(
    points: list[dict[str, Any]], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    show_forecast({"model": "tiny", "points": points, "adapter_bytes": 163840})
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in shown if line.startswith("trains")] == lines


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [(None, ["small: rank 128", "balanced: rank 128, mix 16"]), (RESOLVED, ["balanced: rank 128, mix 16"])],
)
def test_a_job_shows_its_points_until_one_is_chosen(
    service: FakeService, resolved: dict[str, Any] | None, expected: list[str]
) -> None:
    points = [{name: point[name] for name in ("preset", "rank", "mix")} for point in (SMALL, BALANCED)]
    job = {
        "id": "ftjob-1", "status": "running", "model": "tiny", "created_at": 1, "training_file": "file-1",
        "osora": {"points": points, "resolved": resolved},
    }  # fmt: skip
    service.on("GET", "/jobs/ftjob-1", Answer(body=job))
    lines = CliRunner().invoke(app, ["jobs", "show", "ftjob-1"]).stdout.splitlines()
    assert [
        line.split(maxsplit=1 if len(expected) == 1 else 2)[-1] for line in lines if line.startswith("trains")
    ] == expected
