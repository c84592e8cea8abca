"""What the files of a base model say of it, in milliseconds: neither torch nor transformers is imported."""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from osora_common.base_families import why_not
from osora_common.base_weights import check_weights, tensors
from osora_common.unusable_base import UnsupportedFamilyError, UnusableBaseError, unreadable

NEXT = "use a base of another family; docs/models.md lists what is known to work"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.*", "*.model", "tekken.json", "*.tiktoken")


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base. None: it cannot be told from here."""

    family: str | None = None
    has_chat_template: bool | None = None


def facts_of(base: str, folder: Path, names: Collection[str] | None = None) -> BaseFacts:
    """The facts in a model directory, where `names` are the model's files if some of them are elsewhere.

    Raises UnusableBaseError for what is no model, UnsupportedFamilyError for one that is none of ours.
    """
    config = _json(base, folder / "config.json")
    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: its config.json names no `model_type`",
            "take the config.json that came with the model; an adapter is no base",
        )
    if reason := why_not(config):
        raise UnsupportedFamilyError(f"the base {base!r} cannot be used: {reason}", NEXT)
    return BaseFacts(family, _has_chat_template(base, folder, _names(base, folder, names)))


def check_files(base: str, folder: Path, names: Collection[str] | None = None) -> None:
    """Raises UnusableBaseError where weights or tokenizer are not there, or weights are cut short."""
    names_there = _names(base, folder, names)
    check_weights(base, folder, names_there, whole=names is None)
    if names is None:
        _check_layers(base, folder)
    if not any(fnmatch(name, kind) for name in names_there for kind in _TOKENIZERS):
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: it has no tokenizer",
            "put the base's own tokenizer.json and tokenizer_config.json beside its config.json",
        )


def _check_layers(base: str, folder: Path) -> None:
    """Raises UnusableBaseError for more layers than weights: the model is made before its weights are looked for."""
    config, weights = _json(base, folder / "config.json"), tensors(folder)
    inner = config.get("text_config")
    for said in (config, inner if isinstance(inner, dict) else {}):
        layers = said.get("num_hidden_layers")
        if isinstance(layers, int) and layers > weights:
            raise UnusableBaseError(
                f"the base model {base!r} cannot be loaded: its config.json says {layers} layers, and its files of "
                f"weights have only {weights} tensors",
                "take the config.json that came with the model",
            )


def _names(base: str, folder: Path, names: Collection[str] | None) -> Collection[str]:
    if names is not None:
        return names
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_file() or entry.is_dir() for entry in entries}
    except OSError as error:
        raise unreadable(base, folder, error) from error
    # A pipe would be waited for, and a device never end.
    for name in sorted(name for name, is_plain in found.items() if not is_plain and (folder / name).exists()):
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: {folder / name} is no regular file",
            "copy or download the whole model into a directory of its own",
        )
    return sorted(found)


def _has_chat_template(base: str, folder: Path, names: Collection[str]) -> bool:
    if "chat_template.jinja" in names:
        return True
    if "tokenizer_config.json" not in names:
        return False
    template = _json(base, folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        return any(isinstance(one, dict) and one.get("name") == "default" for one in template)
    return isinstance(template, str)


def _json(base: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(base, path, error) from error
    if not isinstance(value, dict):
        raise UnusableBaseError(
            f"the base model {base!r} cannot be loaded: {path} is no JSON object", "copy or download the file again"
        )
    return value
