"""Whether a model directory's weights are there and whole, as far as names, sizes and headers tell."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from osora_common.safetensors_files import INDEX, WHOLE, listed_in, read_header
from osora_common.unusable_base import UnusableBaseError, unreadable

# How a file begins that Git has in place of a large one: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_POINTER = b"version https://git-lfs"


def check_weights(base: str, folder: Path, names: Collection[str], *, whole: bool) -> None:
    """Raises UnusableBaseError if `names`, a model's files, have no safetensors, or (if they must be `whole`) one of
    them is missing in `folder` or cut short there."""
    if WHOLE in names:
        files = [WHOLE]
    elif INDEX in names:
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
    shapes = (entry["shape"] for path in folder.glob("*.safetensors") for entry in read_header(path)[1].values())
    return sum(math.prod(shape) for shape in shapes)


def tensors(folder: Path) -> int:
    """How many tensors they have, likewise."""
    return sum(len(read_header(path)[1]) for path in folder.glob("*.safetensors"))


def _listed(base: str, folder: Path) -> list[str]:
    try:
        return listed_in(folder / INDEX)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: its {INDEX} is not a list of its weights",
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
        begin, header = read_header(path)
        ends = [entry["data_offsets"][1] for entry in header.values()]
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


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_POINTER))
