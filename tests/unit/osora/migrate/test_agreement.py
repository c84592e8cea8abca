import pytest

from osora.migrate.agreement import agree, token_f1


@pytest.mark.parametrize(
    ("old", "new", "exact", "same"),
    [
        ("Oslo", " Oslo\n", True, True),
        ("Oslo", "oslo", False, False),
        ('{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1.0}', False, True),
        ('{"a": 1}', '{"a": true}', False, False),
        ('{"a": 1}', "a: 1", False, False),
        ("1", "1.0", False, False),
    ],
)
def test_the_same_as_text_or_as_json(old: str, new: str, exact: bool, same: bool) -> None:
    agreement = agree(old, new)
    assert (agreement.exact, agreement.same) == (exact, same)


def test_each_field_of_either_answer_counts() -> None:
    old = '{"category": "post", "order": {"id": 7, "late": true}, "tags": ["a", "b"], "note": null}'
    new = '{"category": "post", "order": {"id": 8}, "tags": ["a"], "extra": {}}'
    assert sorted(agree(old, new).fields or []) == [
        ("category", True),
        ("extra", False),
        ("note", False),
        ("order.id", False),
        ("order.late", False),
        ("tags[]", False),
        ("tags[]", True),
    ]
    assert agree("Oslo", "{}").fields is None
    assert agree("{}", "{}").fields == [("(the whole)", True)]
    assert agree("{}", "Oslo").same is False


@pytest.mark.parametrize(
    ("old", "new", "f1"),
    [
        ("The cat sat.", "the cat sat .", 1.0),
        ("a b", "b c", 0.5),
        ("a a", "a", 2 / 3),
        ("", "", 1.0),
        ("a", "", 0.0),
        ("今日は雨", "今日は雪", 0.75),
    ],
)
def test_token_f1(old: str, new: str, f1: float) -> None:
    assert token_f1(old, new) == pytest.approx(f1)
    assert token_f1(new, old) == pytest.approx(f1)
