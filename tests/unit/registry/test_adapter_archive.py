"""Archives of adapters from outside: what is plain passes as it is, and nothing else gets far."""

import contextlib
import hashlib
import io
import json
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.adapter_archive import CONFIG, CONFIG_BYTES, WEIGHTS, repacked
from registry.errors import InvalidRequest, TooLarge

LIMIT = 1_000_000
SCRATCH = Path(tempfile.gettempdir())
SETTINGS = b'{"peft_type": "LORA", "r": 2}'


def weights(header: Any = None, data: bytes = bytes(32), metadata: bool = True) -> bytes:
    """A safetensors file; by default with one A and one B."""
    if header is None:
        header = {
            "base_model.model.q.lora_A.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "base_model.model.q.lora_B.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 32]},
        }
    if metadata and isinstance(header, dict):
        header = {"__metadata__": {"format": "pt"}, **header}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def archive(
    files: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_DEFLATED, **changed: bytes
) -> bytes:
    files = {CONFIG: SETTINGS, WEIGHTS: weights(), **changed} if files is None else files
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def read(data: bytes) -> dict[str, bytes]:
    with repacked(io.BytesIO(data), LIMIT, SCRATCH) as packed:
        content = packed.path.read_bytes()
        assert (packed.bytes, packed.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in opened.infolist())
        return {name: opened.read(name) for name in opened.namelist()}


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught, repacked(io.BytesIO(data), LIMIT, SCRATCH):
        raise AssertionError("it was taken")
    assert caught.value.param == "file"
    assert caught.value.next_action
    return caught.value.message


@pytest.mark.parametrize("folder", ["", "my-lora/", "a/b/"])
def test_the_two_files_pass_byte_for_byte_and_nothing_else_does(folder: str) -> None:
    files = {
        f"{folder}{CONFIG}": SETTINGS,
        f"{folder}{WEIGHTS}": weights(),
        f"{folder}README.md": b"hello",
        "__MACOSX/._x": b"",
    }
    assert read(archive(files)) == {CONFIG: SETTINGS, WEIGHTS: weights()}
    assert read(archive(files, zipfile.ZIP_STORED)) == {CONFIG: SETTINGS, WEIGHTS: weights()}


def test_the_same_files_are_the_same_bytes() -> None:
    def digest(data: bytes) -> str:
        with repacked(io.BytesIO(data), LIMIT, SCRATCH) as packed:
            return packed.sha256

    assert digest(archive()) == digest(archive(compression=zipfile.ZIP_STORED))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", "'../evil', which is no plain path"),
        ("/etc/passwd", "'/etc/passwd', which is no plain path"),
        ("a/../../b", "no plain path"),
        ("a\\b", "no plain path"),
    ],
)
def test_names_that_lead_elsewhere(name: str, said: str) -> None:
    assert said in refusal(archive({CONFIG: SETTINGS, WEIGHTS: weights(), name: b""}))


def test_files_that_are_not_there_or_there_twice() -> None:
    assert "0 files called adapter_config.json" in refusal(archive({WEIGHTS: weights()}))
    assert "no adapter_model.safetensors beside" in refusal(archive({CONFIG: SETTINGS}))
    assert "no adapter_model.safetensors beside" in refusal(archive({f"a/{CONFIG}": SETTINGS, WEIGHTS: weights()}))
    assert "2 files called adapter_config.json" in refusal(archive({CONFIG: SETTINGS, f"a/{CONFIG}": SETTINGS}))
    other = "b" * len(WEIGHTS)  # no tool writes one twice without a warning
    twice = archive({CONFIG: SETTINGS, WEIGHTS: weights(), other: weights()})
    assert f"{WEIGHTS!r} twice" in refusal(twice.replace(other.encode(), WEIGHTS.encode()))
    assert "the archive has 300 entries" in refusal(archive({f"{n}": b"" for n in range(300)}))


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "training_args.PKL"])
def test_a_pickle_in_place_of_the_weights_is_called_one(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is a pickle, which can run code") as caught:
        read(archive({CONFIG: SETTINGS, name: b"\x80\x04."}))
    assert caught.value.next_action is not None
    assert "safe_serialization=True" in caught.value.next_action


@pytest.mark.parametrize("data", [b"", b"PK", b"{}" * 99, archive()[:-30], archive()[20:]])
def test_what_is_no_archive(data: bytes) -> None:
    assert "no ZIP archive" in refusal(data)


def test_other_compressions_and_broken_checksums() -> None:
    assert "compressed in a way" in refusal(archive(compression=zipfile.ZIP_LZMA))
    stored = archive(compression=zipfile.ZIP_STORED)
    assert "no ZIP archive that can be read" in refusal(stored.replace(SETTINGS, SETTINGS.replace(b"2", b"3"), 1))
    encrypted = bytearray(archive())
    encrypted[encrypted.rindex(b"PK\1\2") + 8] |= 1
    assert "is encrypted" in refusal(bytes(encrypted))


def test_what_unpacks_to_more_than_may_be_uploaded_is_cut_off() -> None:
    bomb = archive({CONFIG: SETTINGS, WEIGHTS: bytes(50 * LIMIT)})
    assert len(bomb) < LIMIT
    with pytest.raises(TooLarge, match=f"over {LIMIT} bytes"), repacked(io.BytesIO(bomb), LIMIT, SCRATCH):
        raise AssertionError("it was taken")
    assert f"over {CONFIG_BYTES} bytes" in refusal(archive({CONFIG: bytes(CONFIG_BYTES + 1), WEIGHTS: weights()}))


@pytest.mark.parametrize("is_64", [False, True])
def test_a_list_of_a_million_entries_is_not_read(is_64: bool) -> None:
    """Python's reader would keep them all, half a kilobyte each. ZIP has two places that say how long the list is."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    count = 200_000
    directory = entry * count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, len(directory), 0, 0)
    if is_64:
        end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), 0)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(directory), 1)
        end = end64 + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, 460, 0, 0)
    tracemalloc.start()
    try:
        assert "lists more than the few files" in refusal(directory + end)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(directory)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"[]", "no object with a peft_type"),
        (b"{}", "no object with a peft_type"),
        (b'{"peft_type": ["LORA"]}', "no object with a peft_type"),
        (b"\xff\xfe", "cannot be read"),
        (b"not json", "cannot be read"),
        (b'{"peft_type": "LORA", "peft_type": "OSORA"}', "has the key 'peft_type' twice"),
        (b'{"peft_type": "LORA", "lora_alpha": NaN}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"peft_type": "LORA", "r": ' + b"9" * 10_000 + b"}", "cannot be read"),
    ],
)
def test_configs_that_say_nothing(config: bytes, said: str) -> None:
    assert said in refusal(archive({CONFIG: config, WEIGHTS: weights()}))


def tensor(**changed: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32], **changed}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not in the format"),
        (struct.pack("<Q", 2**62) + b"{}", "header"),
        (weights(b"[]"), "not in the format"),
        (weights(b"{" * 50_000), "not in the format"),
        (weights({}), "0 tensors"),
        (weights(tensor(dtype="I64")), "is of type 'I64'"),
        (weights(tensor(dtype=["F32"])), "is of type"),
        (weights(tensor(shape=[2, 3])), "does not fit"),
        (weights(tensor(shape=[-2, -4])), "does not fit"),
        (weights(tensor(shape=[True, 8])), "does not fit"),
        (weights(tensor(shape=[2**40, 2**40])), "does not fit"),
        (weights(tensor(shape=[2, 2, 2])), "does not fit"),
        (weights(tensor(shape="no")), "does not"),
        (weights(tensor(data_offsets=[0])), "does not say"),
        (weights(tensor(data_offsets=[32, 0])), "does not fit"),
        (weights({"a": 3}), "does not say"),
        (weights(tensor(), data=bytes(31)), "has 1"),
        (weights(tensor(), data=bytes(40)), "its header speaks of"),
        (weights({**tensor(), "b": tensor()["a"]}), "does not begin where"),
        (weights({**tensor(shape=[1, 4], data_offsets=[16, 32])}), "does not begin where"),
    ],
)
def test_weights_that_are_not_what_they_say(content: bytes, said: str) -> None:
    assert said in refusal(archive({CONFIG: SETTINGS, WEIGHTS: content}))


def test_what_is_refused_is_shown_as_text_that_any_terminal_takes() -> None:
    message = refusal(archive({CONFIG: SETTINGS, WEIGHTS: weights({"\x1b[2J\u202e" * 99: 3})}))
    assert message.isprintable()
    assert not {"\x1b", "\u202e"} & set(message)
    assert len(message) < 400


_NUMBERS = st.one_of(st.integers(-2, 40), st.sampled_from([2**31, 2**63, 2**64, True, None, 1.5, "16"]))
_ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "BOOL", "f32", "", None, 4, "F32\0"]),
        "shape": st.one_of(st.lists(_NUMBERS, max_size=4), _NUMBERS),
        "data_offsets": st.one_of(st.lists(_NUMBERS, max_size=3), st.just([0, 16]), st.just([16, 32])),
        "more": st.text(max_size=3),
    },
)


@settings(max_examples=150, deadline=None)
@given(header=st.dictionaries(st.text(max_size=8), _ENTRIES, max_size=4), data=st.integers(0, 40))
@example(header={"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, data=16)
def test_a_header_is_taken_if_its_tensors_are_the_file(header: dict[str, Any], data: int) -> None:
    """Whatever it says: taken are only floats, one after the other, that fill the file, and as they came."""
    content = weights(header, bytes(data))
    try:
        taken = read(archive({CONFIG: SETTINGS, WEIGHTS: content}))
    except InvalidRequest:
        return
    assert taken[WEIGHTS] == content
    spans = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert [0, *(last for _, last in spans)] == [*(first for first, _ in spans), data]
    assert {entry["dtype"] for entry in header.values()} <= {"F32", "F16", "BF16", "F64"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_break_the_reader(data: st.DataObject) -> None:
    """An archive with bytes changed, cut out and put in, anywhere: it is read, or refused in a sentence."""
    content = bytearray(archive(compression=data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        until = data.draw(st.integers(at, min(len(content), at + 8)))
        content[at:until] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(InvalidRequest, TooLarge):
        assert set(read(bytes(content))) == {CONFIG, WEIGHTS}
