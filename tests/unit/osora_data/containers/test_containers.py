"""Every format in every container, whatever the file is called and however it is packed."""

import gzip
import io
import json
import tracemalloc
from typing import Any

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from osora_data import check
from osora_data.containers.json_array import ROWS_COUNTED
from tests.support.training_files import CONTAINERS, PACKERS, csv_table, json_array, json_lines, read_all, values

USER = {"role": "user", "content": 'hi, "you";\r\n\tthere'}
ASSISTANT = {"role": "assistant", "content": "héllo\n\N{GRINNING FACE}"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "chat": [{"messages": [USER, ASSISTANT]}, {"messages": [USER, ASSISTANT, USER, ASSISTANT]}],
    "completion": [{"prompt": "a,b", "completion": "c\nd"}, {"prompt": "", "completion": "[1]"}],
    "preference": [
        {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [USER | {
            "role": "assistant"}]}
    ] * 2,
    "text": [{"text": "Once upon; a time"}, {"text": '"Twice"\n\nupon'}],
}  # fmt: skip


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("format_", ROWS)
def test_all_formats_come_in_all_containers(format_: str, container: str, packer: str) -> None:
    data = PACKERS[packer](CONTAINERS[container](ROWS[format_]))
    checked, rows = read_all(data)
    assert checked.problems == []
    assert (checked.container, checked.format, checked.rows) == (container + packer, format_, 2)
    assert [row.value for row in rows] == ROWS[format_]
    assert [row.number for row in rows] == [1, 2]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("row", "format_"),
    [
        ({"instruction": "a", "input": "", "output": "c"}, "chat"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "chat"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "id": "7"}, "preference"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT | {"content": "b"}]}, "preference"),
        ({"prompt": [USER], "completion": [ASSISTANT]}, "chat"),
    ],
)
def test_rows_of_other_tools_come_in_all_containers(row: dict[str, Any], format_: str, container: str) -> None:
    checked, rows = read_all(CONTAINERS[container]([row, row]))
    (same,) = values(json_lines([row]))
    assert (checked.format, [one.value for one in rows]) == (format_, [same, same])


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FILLED = TEXTS.filter(bool)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}), max_size=3
).map(lambda messages: [*messages, {"role": "assistant", "content": "x"}])
FILES = st.one_of(
    st.lists(st.fixed_dictionaries({"prompt": TEXTS, "completion": FILLED}), min_size=1, max_size=5),
    st.lists(st.fixed_dictionaries({"text": FILLED}), min_size=1, max_size=5),
    st.lists(st.fixed_dictionaries({"messages": MESSAGES}), min_size=1, max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(rows=FILES, container=st.sampled_from(sorted(CONTAINERS)), packer=st.sampled_from(sorted(PACKERS)))
def test_what_is_written_is_read(rows: list[dict[str, Any]], container: str, packer: str) -> None:
    assert values(PACKERS[packer](CONTAINERS[container](rows))) == rows


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_bytes_raise(data: st.DataObject) -> None:
    """A file that was damaged anywhere has rows or problems, and nothing else."""
    container = data.draw(st.sampled_from(sorted(CONTAINERS)))
    packer = data.draw(st.sampled_from(sorted(PACKERS)))
    whole = PACKERS[packer](CONTAINERS[container](ROWS["chat"]))
    place = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=8))
    checked, _ = read_all(whole[:place] + noise + whole[place + data.draw(st.integers(0, 8)) :])
    assert checked.rows or checked.problems


LINE = json.dumps({"prompt": "é", "completion": "b"}, ensure_ascii=False)


@pytest.mark.parametrize("text", [f"{LINE}\n{LINE}\n", f"[{LINE},\n{LINE}]", "prompt,completion\né,b\né,b\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_are_told_by_the_bytes(text: str, encoding: str) -> None:
    checked, rows = read_all(text.encode(encoding))
    assert checked.problems == []
    assert [row.value for row in rows] == [{"prompt": "é", "completion": "b"}] * 2
    assert len(checked.notes) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_of_both_kinds_and_blank_lines(end: str) -> None:
    checked, rows = read_all(end.join([LINE, "", LINE, " ", "", LINE, "", ""]).encode())
    assert [row.line for row in rows] == [1, 3, 6]
    assert checked.notes == [
        {"message": "an empty line among the rows, which was skipped", "count": 3, "lines": [2, 4, 5]}
    ]
    assert read_all(f"{LINE}{end}{end} {end}".encode())[0].notes == []


def test_only_a_line_feed_ends_a_line() -> None:
    """What else ends a line for some readers is white space between two keys, or a character of a text."""
    inside = "\u2028 \u2029 \x85".join("ab")
    rows = [f'{{"prompt": "{inside}",{white}"completion": "c"}}'.encode() for white in (" ", "\r", "\r\r ")]
    assert values(b"\r\n".join(rows) + b"\n\x0b\x0c\n") == [{"prompt": inside, "completion": "c"}] * 3
    checked, _ = read_all(b"\r".join(rows))
    assert (checked.problems[0].line, "there is more" in checked.problems[0].problem) == (1, True)


def test_commas_that_an_array_has_left_behind_are_ignored() -> None:
    for text, line in ((f"{LINE},\n{LINE},\n{LINE}", 1), (f"[{LINE},\n{LINE},{LINE},\n]", 3)):
        checked, rows = read_all(text.encode())
        assert (checked.problems, len(rows)) == ([], 3)
        assert [note["lines"][0] for note in checked.notes] == [line]


def test_rows_of_an_array_have_the_lines_on_which_they_begin() -> None:
    text = f'\n[\n\n{LINE}, {LINE},\n  {{"prompt":\n "a"}}\n,\n{LINE} {LINE}, 7, "x",\n null]\n'
    checked, rows = read_all(text.encode())
    assert [row.line for row in rows] == [4, 4, 8, 8]
    assert [(problem.line, problem.problem) for problem in checked.problems] == [
        (5, "is missing"),
        (8, "a comma is missing before this row"),
        (8, "must be a JSON object, not a number"),
        (8, "must be a JSON object, not a string"),
        (9, "must be a JSON object, not null"),
    ]


def test_what_looks_like_the_next_row_of_an_array_may_be_inside_of_one() -> None:
    row = {"prompt": 'a, {"prompt": "b"}, ', "completion": "c"}
    rows: list[dict[str, Any]] = [row, {**row, "more": [1, {"prompt": 2}, {"prompt": 3}]}] * 3
    assert values(json.dumps(rows).encode()) == [row] * 6


def test_an_error_within_a_row_of_an_array_has_its_own_line() -> None:
    checked, rows = read_all(f'[{LINE},\n{{"prompt": "a",\n "completion": "b",\n}},\n{LINE}]'.encode())
    assert [row.line for row in rows] == [1, 5]
    assert [(problem.line, problem.problem) for problem in checked.problems] == [
        (4, "is not JSON: there is a comma before `}` at character 1")
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators_are_told_by_the_header(delimiter: str) -> None:
    assert values(csv_table(ROWS["completion"], delimiter)) == ROWS["completion"]


def test_headers_may_have_capitals() -> None:
    checked, rows = read_all(b"Prompt;COMPLETION;Id\na;b;1\n")
    assert [row.value for row in rows] == [{"prompt": "a", "completion": "b"}]
    said = [note["message"] for note in checked.notes]
    assert said == [
        'the column "Prompt" is read as `prompt`',
        'the column "COMPLETION" is read as `completion`',
        "`Id` is ignored",
    ]
    assert "twice" in read_all(b"Prompt;prompt;completion\na;b;c\n")[0].problems[0].problem


def test_rows_of_csv_have_the_lines_on_which_they_begin() -> None:
    text = 'prompt,completion\n"a\nb",c\n\nd,\ne,"f ""x"""\ng\n'
    checked, rows = read_all(text.encode())
    assert [(row.line, row.value["completion"]) for row in rows] == [(2, "c"), (6, 'f "x"')]
    assert [(problem.line, problem.field) for problem in checked.problems] == [(5, "completion"), (7, None)]
    assert "has 1 cells, and the header has 2" in checked.problems[1].problem
    assert checked.notes[0]["lines"] == [4]


def test_rows_of_an_array_on_one_line_are_told_apart_by_their_numbers() -> None:
    rows = ROWS["completion"] * 2
    checked, found = read_all(json.dumps(rows).encode())
    assert [row.line for row in found] == [1, 2, 3, 4]
    assert checked.notes == [{"message": ROWS_COUNTED, "count": 1, "lines": [1]}]
    _, found = read_all(json_array(rows))
    assert [row.line for row in found] == [2, 6, 10, 14]


GOOD = LINE.encode()
HEADER = b"prompt,completion\n"
PARQUET = CONTAINERS["parquet"](ROWS["chat"])


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", None, "no examples"),
        (b"\n \n", None, "no examples"),
        (b"\xef\xbb\xbf", None, "no examples"),
        (b"[]", None, "no examples"),
        (HEADER, None, "no examples"),
        (b"once upon a time", None, "none of the files that are read here, and begins with"),
        (b"a,b\n1,2\n", None, "looks like CSV, and its first line names no column that is known here (a, b)"),
        (b"\xef\xbb\xbfFrage;Antwort\r\na;b, c\r\n", None, "known here (Frage, Antwort)"),
        (b"[" + GOOD + b", " + GOOD + b', {"prompt": }]', 3, "is not JSON"),
        (b"[" + GOOD + b", " + GOOD + b", {}," + GOOD + b"]", 3, "has neither"),
        (b"[" + GOOD + b"," + GOOD + b" " + GOOD + b"]", 3, "a comma is missing before this row"),
        (b"[" + GOOD + b"," + GOOD + b"," + GOOD[:9], 3, "in the middle of the row that begins here"),
        (b"PK\x03\x04xxxx", None, "ZIP archive"),
        (b"BZh91AY", None, "bzip2"),
        (gzip.compress(gzip.compress(GOOD, mtime=0), mtime=0), None, "compressed twice"),
        (GOOD.decode().encode("utf-32"), None, "UTF-32"),
        (b'{\n "prompt": "a",\n "completion": "b"\n}\n', 1, "goes over several lines"),
        (GOOD + b"\n" + GOOD + b"\n{", 3, "it ends in the middle"),
        (GOOD + b"\n{\n" + GOOD, 2, "it ends in the middle"),
        (GOOD + b'\n{"prompt": "a\0b"}', 2, "NUL byte at character 14"),
        (GOOD + b"\n{'prompt': 1}", 2, "begins with '"),
        (GOOD + b'\n{"prompt": "a", "completion": "b",}', 2, "a comma before `}` at character 35"),
        (GOOD + b'\n{"prompt": "a", "n": 1e999}', 2, "1e999 is not a JSON value"),
        (GOOD + b'\n{"prompt": "a", "n": -Infinity}', 2, "-Infinity is not a JSON value"),
        (GOOD + b'\n{"prompt": "a", "n": ' + b"[" * 500 + b"]" * 500 + b"}", 2, "nested too deeply"),
        (GOOD + b"\n" + b"x" * (17 << 20), 2, "is longer than"),
        (b"[" + GOOD, 1, "ends in the middle, without `]`"),
        (b"[" + GOOD + b",\n" + GOOD[:9], 2, "in the middle of the row that begins here"),
        (b"[" + GOOD + b"]\n[" + GOOD + b"]", 2, "more behind the end"),
        (b"[" + GOOD + b",\n,\n" + GOOD + b"]", 2, "a comma without a row"),
        (b'["' + b"x" * (17 << 20) + b'"]', 1, "is longer than"),
        (HEADER + b'a,b\n"c,d\ne,f\n', 3, "a quote opens in this row and does not close"),
        (HEADER + b'a,b\nc,"d" e\n', 3, "is not CSV"),
        (HEADER + b"a,b\nc,d\xff\n", 3, "not UTF-8"),
        (HEADER + b"a,b\nc,d\0\n", 3, "a NUL byte"),
        (b"prompt,completion,prompt\na,b,c\n", 1, "twice"),
        (b'"prompt"x,completion\na,b\n', 1, "the header is not CSV"),
        (b'prompt,"completion\na,b\n', 1, "the header is not CSV"),
        (b"messages\n\"[{'role': 'user'}]\"\n", 2, "as Python prints it"),
        (b"messages\nx\n", 2, "is not JSON"),
        (b"messages,id\n,1\n", 2, "is not JSON"),
        (gzip.compress(GOOD + b"\n" + GOOD, mtime=0)[:-9], 2, "is cut off"),
        (gzip.compress(GOOD + b"\n", mtime=0) + b"rest", 2, "other bytes behind"),
        (zstandard.compress(GOOD)[:-3], 1, "cut off"),
        (zstandard.compress(GOOD)[:6] + b"\xff" * 40, None, "damaged"),
        (PARQUET[:-20], None, "damaged"),
        ((GOOD.decode() + "\n").encode("utf-16") + b"\x00", 2, "cut off"),
        ((GOOD.decode() + "\n").encode("utf-16") + b"\x00\xd8a\x00", 2, "is not UTF-16"),
    ],
)
def test_what_cannot_be_read_is_named_at_its_line(data: bytes, line: int | None, words: str) -> None:
    checked, _ = read_all(data)
    problem = checked.problems[0]
    assert words in problem.problem
    assert problem.line == line
    assert problem.next_action
    assert checked.problem_count == len(checked.problems) == 1


@pytest.mark.parametrize("packer", [".gz", ".zst"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_bomb_is_not_unpacked(container: str, packer: str) -> None:
    rows = [{"text": "x" * 100_000}] * 300
    data = PACKERS[packer](CONTAINERS[container](rows) if container != "parquet" else json_lines(rows))
    assert len(data) < 1_000_000
    tracemalloc.start()
    checked = check(io.BytesIO(data), max_bytes=5_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert checked.problems[-1].problem == "is more than 5000000 bytes once it is decompressed"
    assert peak < 40_000_000


def test_the_first_hundred_problems_are_kept_and_all_are_counted() -> None:
    checked, rows = read_all(b"".join(b'{"prompt": 1}\n' if i % 2 else GOOD + b"\n" for i in range(1000)))
    assert (len(rows), checked.problem_count, len(checked.problems)) == (500, 500, 100)
    assert [problem.line for problem in checked.problems] == list(range(2, 202, 2))
    assert checked.problems[0].value == "1"


def test_notes_are_bounded() -> None:
    rows = [{"prompt": "a", "completion": "b", f"key number {i:05d}" + "x" * 200: 1} for i in range(1000)]
    checked, _ = read_all(json_lines(rows))
    assert len(json.dumps(checked.notes)) < 64_000
    assert sum(note["count"] for note in checked.notes) == 1000


def test_rows_longer_than_a_piece_are_read() -> None:
    rows = [{"prompt": "a", "completion": '\\" ]},é' * 300_000}] * 2
    for container in (json_lines, json_array, csv_table):
        assert values(container(rows)) == rows


def key_rows() -> bytes:
    return json.dumps({"prompt": "a", "completion": "b", **{f"co{i}mpletion": 1 for i in range(200_000)}}).encode()


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"\n" * 2_000_000 + GOOD, 1),
        (HEADER + b"\n" * 500_000 + b"a,b\n", 0),
        (b"[" + b"1," * 500_000 + b"1]", 100_000),
        (b'{"a": 1}\n' * 200_000, 100_000),
        (key_rows() * 2, 1),
        (key_rows() + b"\n" + key_rows(), 2),
        ((b'"%s": {%s}' % (b"k" * 1_000_000, b", ".join(b'"%d": "\\u0022"' % i for i in range(200_000)))).join(
            (b"{", b"}")), 1),
        (b",".join(b"c%d" % i for i in range(300_000)) + b",prompt,completion\n1,2\n", 1),
        (HEADER + b'"a\n",' * 3_000_000, 1),
        (b'{"messages": ' + b'[{"role": "user", "content": "a"}' + b', {"role": 1}' * 1_000_000 + b"]}", 1),
        (b'["' + b'\\"' * 8_000_000 + b'"]', 1),
        (b"[" + b"{" * 8_000_000, 1),
        (b'[{"prompt":1},' + b'{"prompt":' * 1_000_000, 2),
        (b'[{"x":1},' + b'{ "x":1},' * 200_000 + b'{"x":1}]', 100_000),
        (b'{"text": "a", "\\u0022": [' + b"0," * 4_000_000 + b"0]}", 0),
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_files_take_little_memory_and_time(data: bytes, count: int) -> None:
    """Each takes a second or so; of what is quadratic in it, hours."""
    checked = check(io.BytesIO(data), max_bytes=len(data))
    assert checked.problem_count == count
    assert len(checked.problems) == min(count, 100)


@pytest.mark.parametrize("messages", [1, 1000])
def test_one_text_that_a_parquet_file_repeats_is_not_unfolded(messages: int) -> None:
    """Such a file has a few kilobytes, and would come to gigabytes."""
    text = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), ["x" * 10_000_000])
    message = pyarrow.StructArray.from_arrays([pyarrow.array(["assistant"] * 1000), text], ["role", "content"])
    ends = pyarrow.array(range(0, 1001, messages), pyarrow.int32())
    out = io.BytesIO()
    table = pyarrow.table({"messages": pyarrow.ListArray.from_arrays(ends, message)})
    parquet.write_table(table, out, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    assert len(out.getvalue()) < 10_000
    checked = check(out, max_bytes=50_000_000)
    assert "is more than 50000000 bytes" in checked.problems[-1].problem or "is longer" in checked.problems[0].problem
    assert checked.rows <= 5


def test_texts_of_which_some_are_stored_once_and_some_by_themselves_are_all_read() -> None:
    rows = [{"messages": [USER, ASSISTANT | {"content": f"{i} " * 300}]} for i in range(3000)]
    table = pyarrow.Table.from_pylist(rows)
    out = io.BytesIO()
    parquet.write_table(table, out, dictionary_pagesize_limit=100_000, data_page_size=10_000)
    assert values(out.getvalue()) == rows


USABLE = {"prompt": ["a"], "completion": ["b"]}
FAR = 2**62


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([10**8], pyarrow.int32()).cast(pyarrow.date32()),
        pyarrow.array([FAR], pyarrow.int64()).cast(pyarrow.timestamp("us")),
        pyarrow.array([1_234_567_891], pyarrow.int64()).cast(pyarrow.timestamp("ns")),
        pyarrow.array([1], pyarrow.int64()).cast(pyarrow.timestamp("us", tz="Nowhere/At_all")),
        pyarrow.array([FAR], pyarrow.int64()).cast(pyarrow.duration("s")),
        pyarrow.array([[("a", "b")]], pyarrow.map_(pyarrow.string(), pyarrow.string())),
    ],
    ids=["date", "far", "nanoseconds", "zone", "duration", "map"],
)
def test_columns_of_values_that_python_has_none_for_are_ignored_like_others(column: pyarrow.Array) -> None:
    checked, rows = read_all(written(pyarrow.table({**USABLE, "at": column})))
    assert [row.value for row in rows] == [{"prompt": "a", "completion": "b"}]
    assert [note["message"] for note in checked.notes] == ["`at` is ignored"]


def test_a_name_that_a_table_has_twice_is_refused() -> None:
    columns = [pyarrow.array([text]) for text in "abc"]
    twice = pyarrow.Table.from_arrays(columns, names=["prompt", "completion", "completion"])
    assert [problem.problem for problem in read_all(written(twice))[0].problems] == [
        'there are two columns of the name "completion"'
    ]
    inner = pyarrow.StructArray.from_arrays(columns[:2], names=["a", "a"])
    (problem,) = read_all(written(pyarrow.table({**USABLE, "of": inner})))[0].problems
    assert "a key that comes twice" in problem.problem


@pytest.mark.parametrize("value", [b"bytes", float("nan")])
def test_tools_and_arguments_of_a_table_are_json(value: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": value}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": value}}}
    for row in (
        {"messages": [USER, ASSISTANT], "tools": [tool]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]},
    ):
        (problem,) = read_all(written(pyarrow.Table.from_pylist([row])))[0].problems
        assert "JSON" in problem.problem


def test_rows_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osora_data.reader.MOST_ROWS", 2)
    checked, rows = read_all(b"\n".join([GOOD] * 4))
    assert [row.line for row in rows] == [1, 2]
    assert [(problem.line, problem.problem) for problem in checked.problems] == [(3, "begins a row beyond the first 2")]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("others", [("messages",), ("instruction", "output"), ("messages", "conversations")])
def test_columns_of_other_formats_that_are_empty_tell_nothing(others: tuple[str, ...], container: str) -> None:
    row = {"prompt": "a", "completion": "b"}
    empty = dict.fromkeys(others) if container != "csv" else dict.fromkeys(others, "")
    if container == "csv" and "instruction" in others:
        return  # an empty text is a text there
    assert values(CONTAINERS[container]([{**row, **empty}] * 2)) == [row, row]


def test_a_file_that_takes_too_long_is_told_so_at_its_line() -> None:
    rows = b"\n".join([GOOD] * 100)
    assert check(io.BytesIO(rows), seconds=100).problems == []
    checked = check(io.BytesIO(rows), seconds=-1)
    assert (checked.rows, checked.problem_count, checked.problems[0].line) == (0, 1, 1)
    assert "seconds of reading" in checked.problems[0].problem


def written(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()
