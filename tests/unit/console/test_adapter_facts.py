"""What is said of an adapter."""

from typing import Any

from console.adapter_facts import aliases_of, before_and_after, origin, shares, short_name


def evaluation(step: int, loss: float, **more: float) -> Any:
    return {"type": "metrics", "data": {"step": step, "valid_loss": loss, **more}}


def test_figures_go_from_before_training_to_the_state_that_was_kept() -> None:
    events = [
        evaluation(20, 0.9, valid_exact_match=0.5),
        {"type": "metrics", "data": {"step": 3, "train_loss": 1.0}},
        {"type": "message", "data": {"valid_loss": 0.4}},
        evaluation(0, 2.0, valid_exact_match=0.5),
        evaluation(10, 0.4, valid_exact_match=0.75),
    ]
    loss, match = before_and_after(events, 20)
    assert (loss.name, loss.before, loss.after, loss.is_better) == ("Validation loss", "2.000", "0.900", True)
    assert (match.before, match.after, match.is_better) == ("50%", "50%", False)
    assert before_and_after([*events, evaluation(30, 0.0004)], 30)[0].after == "< 0.001", "a loss is never nothing"
    assert before_and_after(events, 11)[0].after == "0.400", "of a step that was not measured, the best one's"


def test_without_a_measure_before_there_is_nothing_to_compare() -> None:
    assert before_and_after([], 3) == []
    assert before_and_after([evaluation(5, 1.0), evaluation(9, 0.5)], 9) == []


def test_words() -> None:
    assert short_name("ft:osora-tiny:acme:tickets:1a2b") == "tickets"
    assert short_name("ft:osora-tiny:acme::1a2b") == "1a2b"
    assert short_name("triage") == "triage"
    assert origin({"job_id": "ftjob-1", "step": 9}) == "Trained here, state of step 9"
    assert origin({"job_id": None}) == "Brought from elsewhere"
    assert shares({"a": 95, "b": 5}) == [("a", 95, "95 %"), ("b", 5, "5 %")]
    named: list[Any] = [{"name": "x", "targets": {"a": 1, "b": 2}}, {"name": "y", "targets": {"c": 1}}]
    assert [alias["name"] for alias in aliases_of(named, ["b", "adp-1"])] == ["x"]
