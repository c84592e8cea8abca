"""OSORA_BASES: names, and paths where they differ."""

import pytest

from osora_common.base_list import parse_bases


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
