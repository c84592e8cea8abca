"""Which ranks an adapter can have."""

import pytest

from osora_common.basis_progress import BasisProgress
from osora_common.hyperparameters import Spec, spec_values
from osora_common.ranks import DEFAULT_RANK, Rank, Ranks, default_rank, installed_rank


@pytest.mark.parametrize(
    ("ranks", "asked", "rank"),
    [
        (Ranks(), None, DEFAULT_RANK),
        (Ranks(held=64), None, 64),
        (Ranks(held=576, full=576), None, DEFAULT_RANK),
        (Ranks(held=128, full=32), None, 32),
        (Ranks(held=576, full=576), "full", 576),
        (Ranks(held=576, full=192), "full", 192),
        (Ranks(held=576, full=576), 300, 300),
    ],
)
def test_what_is_asked_becomes_a_number(ranks: Ranks, asked: Rank | None, rank: int) -> None:
    assert ranks.resolved(asked) == rank
    assert ranks.refusal(asked) is None
    values = spec_values({}, {} if asked is None else {"rank": asked}, rows=10, seed=0, ranks=ranks)
    assert Spec(**values).rank == rank


@pytest.mark.parametrize(
    ("ranks", "asked", "said", "next_action"),
    [
        (Ranks(held=128, full=576), 129, "129, over the basis's rank 128", "OSORA_BASIS_RANK"),
        (Ranks(held=128, full=576), "full", "full, which is 576 here, over the basis's rank 128", "use 1 to 128"),
        (Ranks(held=576, full=576), 577, "577, and the largest full rank of the base's targeted weights is 576", "576"),
        (Ranks(held=576, full=192), 193, "193, and the largest full rank of the base's targeted weights is 192", "192"),
        (Ranks(held=128, full=576), 1000, "the largest full rank of the base's targeted weights is 576", "1 to 128"),
    ],
)
def test_a_rank_that_nothing_has_is_refused_with_the_largest_one(
    ranks: Ranks, asked: Rank, said: str, next_action: str
) -> None:
    refusal = ranks.refusal(asked)
    assert refusal is not None
    assert said in refusal[0]
    assert next_action in refusal[1]


def test_an_installation_says_its_rank_or_leaves_it_to_the_bases_size() -> None:
    assert installed_rank("auto", 135_000_000) == default_rank(135_000_000)
    assert installed_rank("full", 135_000_000) == "full"
    assert installed_rank(64) == 64


def test_a_line_of_progress_is_read_back_from_a_log() -> None:
    first, last = BasisProgress("Org/base-1", 3, 210), BasisProgress("Org/base-1", 84, 210, 12)
    assert str(last) == "basis of Org/base-1: 84 of 210 weights (40 %), about 12 s left"
    assert BasisProgress.last_in(f"loading\nINFO {first}\nINFO {last}\nmore") == last
    assert BasisProgress.last_in(f"INFO {first}") == first
    assert BasisProgress.last_in("nothing of the kind") is None
