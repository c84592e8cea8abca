"""What a JSON body may hold, and what is said of one that cannot be read."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.json_body import MAX_DEPTH, MAX_VALUES, parse
from registry.errors import InvalidRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(JSON, st.booleans())
def test_a_good_body_is_read_as_it_is(value: Any, is_ascii: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


def test_a_byte_order_mark_is_no_part_of_it() -> None:
    assert parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b"{", "the body is not JSON: expecting property name enclosed in double quotes at character 1", None),
        (b'{"a": "b', "the body is not JSON: unterminated string starting at character 6", None),
        (b'{"a": 1,}', "the body is not JSON: expecting property name enclosed in double quotes at character 8", None),
        (b'{"a": "\xff"}', "the body is not JSON: byte 7 is not UTF-8", None),
        (b'{"a": "\xed\xa0\xbd"}', "the body is not JSON: byte 7 is not UTF-8", None),
        ('{"a": 1}'.encode("utf-16"), "the body is not JSON: byte 0 is not UTF-8", None),
        (b'{"a": ' + b"1" * 5000 + b"}", "the body is not JSON: a number in it has thousands of digits", None),
        (b'{"a": NaN}', "a is NaN, which is not a number of JSON's", "a"),
        (b'{"a": [1, -1e999]}', "a[1] is -Infinity, which is not a number of JSON's", "a[1]"),
        (b'{"a": 1, "b": {"c": 2, "c": 3}}', "b.c is there twice", "b.c"),
        (b'{"a": 1, "a": 1}', "a is there twice", "a"),
        (rb'{"a": "\ud83d"}', r'a has half of a surrogate pair, which is no character: "\ud83d"', "a"),
        (rb'[{"a": "\udE00\ud83d"}]', "[0].a has half of a surrogate pair", "[0].a"),
        (rb'{"\ud83d": 1}', r"\ud83d has half of a surrogate pair", r"\ud83d"),
        (b'{"a": ' + b"[" * 90 + b"]" * 90 + b"}", f"a is nested more than {MAX_DEPTH} levels deep", "a"),
        (b"[" * 90_000 + b"]" * 90_000, f"the body is nested more than {MAX_DEPTH} levels deep", None),
        (b"[" + b"0," * MAX_VALUES + b"0]", f"the body has more than {MAX_VALUES} values", None),
        # Texts that end in a backslash, in a quote, and in one of each: what comes after them counts.
        (
            b"[" + rb'"\\\\", "\"", "\\\\\"",' * (MAX_VALUES // 3 + 1) + b"0]",
            f"the body has more than {MAX_VALUES} values",
            None,
        ),
    ],
)
def test_what_is_refused(body: bytes, message: str, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert caught.value.message.startswith(message)
    assert caught.value.param == param
    assert caught.value.next_action


def test_whole_surrogate_pairs_are_characters() -> None:
    assert parse(rb'{"a": "\ud83d\ude00", "\uD83D\uDE00": "\\ud83d"}') == {"a": "😀", "😀": "\\ud83d"}


def test_as_deep_as_is_allowed() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(InvalidRequest, match="nested"):
        parse(b"[" * (MAX_DEPTH + 1) + b"1" + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("text", [r",[{" * MAX_VALUES, r"\",\"," * MAX_VALUES, "\\\\"])
def test_what_is_inside_a_text_counts_as_one_value(text: str) -> None:
    body = f'{{"prompt": "{text}"}}'.encode()
    assert parse(body) == json.loads(body)


def test_the_same_names_in_different_objects_are_fine() -> None:
    value = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}]}
    assert parse(json.dumps(value).encode()) == value


def test_a_long_name_or_value_is_cut_where_it_is_quoted() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(json.dumps({"n" * 100_000: "\ud83d" * 100_000}).encode())
    assert len(caught.value.message) < 1000


def test_every_json_body_of_ours_is_read_like_this() -> None:
    folder = Path(__file__).parents[3] / "api"
    for path in folder.glob("*/endpoints.py"):
        text = path.read_text()
        assert ("body: " in text) <= ("route_class=JsonRoute" in text), path
