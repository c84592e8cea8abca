"""Whether a model directory's weights are there and whole, as far as names, sizes and headers tell."""

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from osora_common.unusable_base import UnusableBaseError, unreadable

_INDEX = "model.safetensors.index.json"
_HEADER_BYTES = 8
# The format's own limit: https://github.com/huggingface/safetensors#format
_LONGEST_HEADER = 100_000_000
# How a file begins that Git has in place of a large one: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_POINTER = b"version https://git-lfs"


def check_weights(base: str, folder: Path, names: Collection[str], *, whole: bool) -> None:
    """Raises UnusableBaseError if `names`, a model's files, have no safetensors, or (if they must be `whole`) one of
    them is missing in `folder` or cut short there."""
    if "model.safetensors" in names:
        files = ["model.safetensors"]
    elif _INDEX in names:
        files = _listed(base, folder) if whole else []
    else:
        raise _without_safetensors(base, sorted(names))
    if not whole:
        return
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: {len(missing)} of its {len(files)} files of weights "
            f"{'is' if len(missing) == 1 else 'are'} missing, {missing[0]} among them",
            f"copy or download the whole model into {folder}",
        )
    for name in files:
        _check_whole(base, folder / name)


def values(folder: Path) -> int:
    """How many values the weights in a model directory have, by the headers of its safetensors files."""
    shapes = (
        entry["shape"]
        for path in folder.glob("*.safetensors")
        for name, entry in _header(path)[1].items()
        if name != "__metadata__"
    )
    return sum(math.prod(shape) for shape in shapes)


def _listed(base: str, folder: Path) -> list[str]:
    try:
        return sorted({str(name) for name in json.loads((folder / _INDEX).read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: its {_INDEX} is not a list of its weights",
            f"copy or download the whole model into {folder}",
        ) from error


def _without_safetensors(base: str, names: Sequence[str]) -> UnusableBaseError:
    def first(*endings: str) -> str | None:
        return next((name for name in names if name.endswith(endings)), None)

    if pickle := first(".bin", ".pt", ".pth", ".ckpt"):
        return UnusableBaseError(
            f"the base model {base!r} cannot be loaded: its weights are pickles ({pickle}), which can run code of "
            "whoever made them, and only safetensors are read",
            "take a version of it with safetensors; or, where you trust it, convert it with transformers: "
            f"AutoModelForCausalLM.from_pretrained({base!r}).save_pretrained(...)",
        )
    found = first(".gguf", ".onnx", ".safetensors")
    return UnusableBaseError(
        f"the base model {base!r} cannot be loaded: it has no model.safetensors" + (f", only {found}" if found else ""),
        "copy or download the model's safetensors, as transformers writes them, beside its config.json",
    )


def _check_whole(base: str, path: Path) -> None:
    try:
        size = path.stat().st_size
        begin, header = _header(path)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = begin + max(ends, default=0)
    except OSError as error:
        raise unreadable(base, path, error) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        if _begins(path) == _POINTER:
            raise UnusableBaseError(
                f"the base model {base!r} cannot be loaded: {path.name} is only a pointer of Git LFS",
                f"run `git lfs pull` in {path.parent}",
            ) from error
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: {path.name} is cut short or no safetensors file",
            "copy or download the file again",
        ) from error
    if size != whole:
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: {path.name} has {size} bytes and should have {whole}",
            "copy or download the file again",
        )


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors begin, and what the file says of them. Raises ValueError if it is none of that format."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_BYTES), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path} has no header")
        return _HEADER_BYTES + length, json.loads(file.read(length))


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_POINTER))
