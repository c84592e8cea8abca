import math

import pytest

from osora.cli.chart import LossChart


def drawn(chart: LossChart, width: int = 60, *, ascii_only: bool = False) -> list[str]:
    return [line.plain for line in chart.lines(width, ascii_only=ascii_only)]


def falling(steps: int = 100) -> LossChart:
    chart = LossChart(steps=steps)
    for step in range(1, steps + 1):
        chart.add(step, 4.0 - 3.0 * step / steps)
    return chart


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_loss_that_falls_goes_from_the_upper_left_to_the_lower_right(ascii_only: bool) -> None:
    *rows, axis, legend = drawn(falling(), ascii_only=ascii_only)
    places = [[column for column, character in enumerate(row[7:]) if character not in " \u2800"] for row in rows]
    assert all(places)
    firsts = [row[0] for row in places]
    assert firsts == sorted(firsts)
    assert firsts[0] < 3
    assert places[-1][-1] > 50
    assert rows[0].startswith(" 3.97")
    assert rows[-1].startswith("    1")
    assert axis.rstrip().endswith("step 100")
    assert "training loss" in legend
    assert "validation" not in legend
    assert all(len(row) <= 60 for row in rows)
    if ascii_only:
        assert "".join([*rows, axis, legend]).isascii()


def test_validation_losses_are_marks_of_their_own() -> None:
    chart = falling()
    chart.add(0, 4.0, is_validation=True)
    chart.add(100, 1.0, is_validation=True)
    *rows, _, legend = drawn(chart)
    assert rows[0].count("◆") == 1
    assert rows[-1].rstrip().endswith("◆")
    assert "validation loss" in legend


def test_losses_that_differ_by_much_are_on_a_logarithmic_scale() -> None:
    chart = LossChart(steps=2)
    chart.add(1, 10.0)
    chart.add(2, 0.1)
    lines = drawn(chart)
    assert "logarithmic" in lines[-1]
    assert lines[4].lstrip().startswith("1 ")
    assert "logarithmic" not in drawn(falling())[-1]


def test_what_is_no_number_is_not_drawn_and_equal_losses_are_a_line() -> None:
    chart = LossChart(steps=4)
    for step, loss in enumerate((1.0, math.nan, math.inf, None, 1.0), 1):
        chart.add(step, loss)
    assert len(drawn(chart)) == 10
    assert [step for step, _ in chart.training] == [1, 5]


def test_steps_that_are_made_again_replace_those_before() -> None:
    chart = falling(10)
    chart.add(4, 9.0)
    assert chart.training[-1] == (4, 9.0)
    assert [step for step, _ in chart.training] == [1, 2, 3, 4]


def test_a_long_job_does_not_grow_without_end() -> None:
    chart = LossChart(steps=50_000)
    for step in range(1, 50_001):
        chart.add(step, 1.0 + 1.0 / step)
    assert len(chart.training) <= 4_000
    assert chart.training[0][0] == 1
    assert chart.training[-1][0] == 50_000
