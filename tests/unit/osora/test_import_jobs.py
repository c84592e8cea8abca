import pytest

from osora.cli.import_jobs import choose, numbers
from osora.errors import OsoraUsageError

JOBS = [
    {"id": "ftjob-3", "status": "failed", "model": "gpt-4o", "fine_tuned_model": None, "created_at": 3},
    {"id": "ftjob-2", "status": "succeeded", "model": "gpt-4o", "fine_tuned_model": "ft:b", "created_at": 2},
    {"id": "ftjob-1", "status": "succeeded", "model": "ft:b", "fine_tuned_model": "ft:a", "created_at": 1},
]


def chosen(*, every: bool = False, ids: tuple[str, ...] = (), models: tuple[str, ...] = ()) -> list[str]:
    return [job["id"] for job in choose(JOBS, every, ids, models, dry_run=False, as_json=True)]


def test_jobs_are_chosen_by_id_and_by_what_they_made_or_began_with() -> None:
    assert chosen(every=True) == ["ftjob-1", "ftjob-2"]
    assert chosen(ids=("ftjob-3",), models=("ft:a",)) == ["ftjob-1", "ftjob-3"]
    assert chosen(models=("gpt-4o",)) == ["ftjob-2"]
    assert chosen(models=("ft:b",)) == ["ftjob-1", "ftjob-2"]
    for unknown in ({"ids": ("ftjob-9",)}, {"models": ("ft:c",)}):
        with pytest.raises(OsoraUsageError):
            chosen(**unknown)


@pytest.mark.parametrize(("text", "places"), [("1", [0]), (" 3, 1-2", [0, 1, 2]), ("2-2,2", [1])])
def test_numbers(text: str, places: list[int]) -> None:
    assert numbers(text, 3) == places


@pytest.mark.parametrize("text", ["", "0", "4", "2-9", "3-1", "x", "-1", "1-99999999999"])
def test_a_number_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(OsoraUsageError):
        numbers(text, 3)
