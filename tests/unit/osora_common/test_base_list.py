"""OSORA_BASES: names, and paths where they differ."""

import pytest
from pydantic import TypeAdapter, ValidationError

from osora_common.base_list import BaseList, parse_bases


@pytest.mark.parametrize(
    ("text", "bases"),
    [
        ("tiny", [("tiny", "tiny")]),
        ("tiny, big=/models/big,", [("tiny", "tiny"), ("big", "/models/big")]),
        (" tiny = /a ,big=", [("tiny", "/a"), ("big", "big")]),
        ("odd=/path=with=signs", [("odd", "/path=with=signs")]),
        ("=/nameless", [("", "/nameless")]),
        (" , ", []),
    ],
)
def test_a_list_of_bases(text: str, bases: list[tuple[str, str]]) -> None:
    assert parse_bases(text) == bases


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must list at least one base"),
        (" , ", "must list at least one base"),
        ("=/nameless", "'=/nameless' has no name before its `=`"),
        ("tiny, big= ", "'big=' has no path or hub name after its `=`"),
        ("tiny big", "'tiny big' names a base 'tiny big', with blanks in it: separate bases by commas"),
        ("a=/x,b,a=/y", "names a base twice, 'a'"),
    ],
)
def test_a_list_that_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(BaseList).validate_python(text)


def test_a_list_that_can() -> None:
    text = "tiny, big=/models/big of mine,owner/name,"
    assert TypeAdapter(BaseList).validate_python(text) == text
