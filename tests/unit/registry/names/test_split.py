"""Requests that an alias splits between models."""

from collections import Counter
from dataclasses import dataclass

from registry.names.split import choose


@dataclass(frozen=True)
class Option:
    target: str
    weight: int


USERS = [f"user-{number}".encode() for number in range(20_000)]


def chosen(weights: dict[str, int], alias: str = "triage") -> list[str]:
    options = [Option(target, weight) for target, weight in weights.items()]
    return [choose(alias, options, user).target for user in USERS]


def moves(before: list[str], after: list[str]) -> Counter[tuple[str, str]]:
    return Counter((old, new) for old, new in zip(before, after, strict=True) if old != new)


def test_each_gets_what_its_weight_says() -> None:
    counts = Counter(chosen({"old": 90, "new": 5, "other": 5}))
    assert abs(counts["old"] / len(USERS) - 0.9) < 0.01
    assert abs(counts["new"] / len(USERS) - 0.05) < 0.01
    assert abs(counts["other"] / len(USERS) - 0.05) < 0.01


def test_raising_a_weight_moves_no_more_than_it_must() -> None:
    before = chosen({"old": 95, "new": 5})
    moved = moves(before, chosen({"old": 90, "new": 10}))
    assert set(moved) == {("old", "new")}, "nobody goes the other way"
    assert abs(moved["old", "new"] / len(USERS) - 0.05) < 0.01
    joined = moves(before, chosen({"old": 95, "new": 5, "newest": 25}))
    assert {new for _, new in joined} == {"newest"}


def test_only_the_proportion_counts() -> None:
    assert chosen({"old": 95, "new": 5}) == chosen({"new": 50, "old": 950})


def test_aliases_split_on_their_own() -> None:
    """Those who try one new model are not those who try all of them."""
    trials = [chosen({"old": 50, "new": 50}, alias) for alias in ("triage", "answers")]
    both = sum(one == other == "new" for one, other in zip(*trials, strict=True))
    assert abs(both / len(USERS) - 0.25) < 0.02


def test_the_choice_is_the_same_in_every_version() -> None:
    """Written down: a user must not move because the service was updated, or was restarted with another hash seed."""
    options = [Option("adp-1", 50), Option("adp-2", 50)]
    assert [choose("triage", options, user).target[-1] for user in USERS[:12]] == list("121112221111")
