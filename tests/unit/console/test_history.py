"""What a job's events come to."""

from typing import Any

from console.charts import family, losses, options, thinned
from console.history import History
from osora.schemas import Event


def event(number: int, message: str = "", **data: Any) -> Event:
    kind: Any = "metrics" if {"train_loss", "valid_loss"} & data.keys() else "message"
    return {
        "id": f"ftevent-{number}",
        "created_at": number,
        "level": "info",
        "message": message,
        "type": kind,
        "data": data,
    }


def test_curves_are_what_was_measured_and_an_event_that_comes_twice_counts_once() -> None:
    history = History()
    events = [
        event(1, "Files validated"),
        event(2, step=0, total_steps=4, valid_loss=7.0, valid_exact_match=0.0),
        event(3, step=1, total_steps=4, train_loss=5.0, learning_rate=0.01, remaining_seconds=9.0),
        event(
            4, step=2, total_steps=4, train_loss=3.0, learning_rate=0.02, tokens_per_second=12.0, remaining_seconds=6.0
        ),
    ]
    assert [history.add(one) for one in (*events, *events)] == [True, False, False, False] + [False] * 4
    assert history.curves["train_loss"] == {1: 5.0, 2: 3.0}
    assert history.latest("valid_exact_match") == 0.0
    assert history.latest("train_reward_margin") is None
    assert (history.step, history.total_steps, history.remaining_seconds, len(history.messages)) == (2, 4, 6.0, 1)
    assert [line.name for line in losses(history)] == ["training loss", "validation loss"]


def test_a_step_that_a_later_attempt_takes_again_counts_as_it_took_it() -> None:
    history = History()
    for number, (step, loss) in enumerate([(1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5)]):
        history.add(event(number, step=step, total_steps=3, train_loss=loss))
    assert history.curves["train_loss"] == {1: 5.0, 2: 4.5, 3: 3.0}
    assert history.step == 2
    for number, text in enumerate(("old", "new")):
        history.add(event(10 + number, step=2, prompt="Which city?", text=text))
    assert [sample.text for sample in history.samples_by_prompt()["Which city?"]] == ["new"]


def members(*fates: str | None) -> list[dict[str, Any]]:
    return [
        {"learning_rate": 0.03 / 3**n, "sigma_rate": 2.0, "loss": 1.0 + n, "fate": fate} for n, fate in enumerate(fates)
    ]


def test_a_sweep_is_a_family_whose_discarded_members_end_where_they_were_discarded() -> None:
    history = History()
    history.add(event(1, "Sweep", step=8, total_steps=30, members=members(None, None, "discarded")))
    history.add(event(2, "Sweep", step=15, total_steps=30, members=members(None, "discarded", "discarded")))
    assert [line.name for line in family(history)] == [
        "lr 0.03", "lr 0.01 (discarded)", "lr 0.00333333 (discarded)",
    ], "what is the same in all is left out"  # fmt: skip
    assert [[*line.curve] for line in family(history)] == [[8, 15], [8, 15], [8]]
    assert [line.is_dotted for line in family(history)] == [False, True, True]


def test_the_result_file_of_a_sweep_has_all_its_curves() -> None:
    history = History()
    history.add_family(
        "learning_rate,sigma_rate,step,train_loss,valid_loss,sweep_loss,outcome\n"
        "0.03,2.0,0,,7.0,7.0,\n0.03,2.0,1,3.0,2.5,2.5,chosen\n0.1,2.0,0,,7.0,7.0,\n0.1,2.0,1,9.0,,8.0,discarded\n"
    )
    history.add(event(3, "Sweep", step=1, total_steps=2, members=members(None, "discarded")))
    assert {line.name: line.curve for line in family(history)} == {
        "lr 0.03 (chosen)": {0: 7.0, 1: 2.5},
        "lr 0.1 (discarded)": {0: 7.0, 1: 8.0},
    }


def test_a_long_curve_keeps_its_peaks_its_ends_and_its_order() -> None:
    curve = {step: 1.0 for step in range(10_000)} | {5_001: 99.0, 7_003: -1.0}
    points = thinned(curve)
    assert len(points) <= 402
    assert {(5_001, 99.0), (7_003, -1.0), (9_999, 1.0)} <= {*points}
    assert points == sorted(points)
    assert thinned({2: 1.0, 1: 3.0}) == [(1, 3.0), (2, 1.0)]


def test_only_losses_that_differ_widely_are_on_a_logarithmic_axis() -> None:
    history = History()
    for number, loss in enumerate((8.0, 0.1)):
        history.add(event(number, step=number + 1, total_steps=2, train_loss=loss))
    assert options(losses(history), 2, is_loss=True)["yAxis"]["type"] == "log"
    assert options(losses(history), 2)["yAxis"]["type"] == "value"
