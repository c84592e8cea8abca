"""What the safetensors files of a model say of themselves: no tensor is read, and no library is needed."""

import json
from pathlib import Path
from typing import Any

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LENGTH_BYTES = 8
# The format's own limit: https://github.com/huggingface/safetensors#format
_LONGEST_HEADER = 100_000_000


def header_length(path: Path) -> int:
    """Bytes that a file says its header has."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(_LENGTH_BYTES), "little")


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where a file's tensors begin, in bytes, and the entry (dtype, shape, data_offsets) of each by its name.

    Raises ValueError if it is none of that format.
    """
    length = header_length(path)
    if length > _LONGEST_HEADER:
        raise ValueError(f"{path} has no header")
    with path.open("rb") as file:
        file.seek(_LENGTH_BYTES)
        entries = json.loads(file.read(length))
    if not isinstance(entries, dict):
        raise ValueError(f"{path} has no header")
    return _LENGTH_BYTES + length, {name: entry for name, entry in entries.items() if name != "__metadata__"}


def listed_in(index: Path) -> list[str]:
    """The names of the files that an index of shards lists. Raises ValueError, KeyError, TypeError or AttributeError
    if it is none."""
    return sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
