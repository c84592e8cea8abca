"""A GGUF file made into a folder of safetensors: once, in parts that are kept if it is broken off, and there whole or
not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from osora_common.safetensors_files import INDEX
from osora_core.errors import UserError
from osora_core.gguf_base.head import GgufFile
from osora_core.gguf_base.vocabulary import save
from osora_core.gguf_base.weights import Place, places_of, shards_of, values_of

# What is converted by other rules than these is converted anew.
RULES = 1
SHARD_BYTES = 256 * 1024**2
_MANIFEST = "converted.json"
# Beside the weights: configuration, tokenizer, index.
_SMALL_BYTES = 64 * 1024**2


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a whole conversion: every file that was written, in its size."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
        return manifest["rules"] == RULES and all((folder / name).stat().st_size == sizes[name] for name in sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def convert(
    source: Path, sha256: str, folder: Path, progress: Callable[[float], object], shard_bytes: int = SHARD_BYTES
) -> None:
    """Make `folder` of the GGUF file whose hash is `sha256`; nothing to do where it is there.

    `progress` is told the part that is done. Broken off, it goes on with the shard that it was at. One process at a
    time: the caller sees to that. Raises UserError, UnsupportedBase among them, and OSError where the disk is full.
    """
    if is_converted(folder):
        return
    file = GgufFile.open(source)
    places = places_of(file)
    shards = list(shards_of(places, shard_bytes))
    draft = folder.with_name(f"{folder.name}.partial")
    journal = _Journal(draft, {"rules": RULES, "gguf_sha256": sha256, "shards": [len(shard) for shard in shards]})
    _require_room(draft, sum(place.bytes for place in places) + _SMALL_BYTES - journal.bytes)
    total, done = sum(place.bytes for place in places), 0
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= {place.name: name for place in shard}
        if not journal.has(name):
            journal.write(name, _shard(file, shard))
        done += sum(place.bytes for place in shard)
        progress(done / total)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (draft / INDEX).write_text(json.dumps(index, indent=1))
    file.config.architectures = [_class_name(file)]
    file.config.save_pretrained(draft)
    save(file, draft)
    journal.finish()
    shutil.rmtree(folder, ignore_errors=True)  # of other rules, or one that has lost files
    os.replace(draft, folder)


def _shard(file: GgufFile, places: list[Place]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_file({place.name: values_of(file, place) for place in places}, path, {"format": "pt"})

    return write


def _class_name(file: GgufFile) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name: str = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[file.kind]
    return name


def _require_room(draft: Path, needed: int) -> None:
    free = shutil.disk_usage(draft).free
    if needed > free:
        raise UserError(
            f"the converted base takes {needed:,} bytes of disk, and {free:,} are free in {draft.parent}",
            param="source",
            next_action="make room there, or set OSORA_DATA_DIR to a larger disk",
        )


class _Journal:
    """Which files of a draft are there, with their hashes; what was begun by other rules, or of another file, goes."""

    def __init__(self, draft: Path, plan: Mapping[str, Any]) -> None:
        self._draft = draft
        self._path = draft / _MANIFEST
        self._said: dict[str, Any] = {**plan, "files": {}}
        try:
            before = json.loads(self._path.read_text())
            is_ours = {name: before[name] for name in plan} == dict(plan)
        except (OSError, ValueError, KeyError, TypeError):
            is_ours = False
        if is_ours:
            self._said = before
        else:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)

    @property
    def bytes(self) -> int:
        """Of the files that are there."""
        return sum(int(entry["bytes"]) for entry in self._said["files"].values())

    def has(self, name: str) -> bool:
        """Whether a file is there as it was written."""
        path, entry = self._draft / name, self._said["files"].get(name)
        return entry is not None and path.is_file() and entry == _entry(path)

    def write(self, name: str, make: Callable[[Path], None]) -> None:
        """Have a file made, and read it again for its hash: a disk that has swallowed it is found out now."""
        path = self._draft / name
        make(path)
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        self._said["files"][name] = _entry(path)
        self._save()

    def finish(self) -> None:
        """Note all other files too."""
        for path in sorted(self._draft.iterdir()):
            if path != self._path and path.name not in self._said["files"]:
                self._said["files"][path.name] = _entry(path)
        self._save()

    def _save(self) -> None:
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(self._said, indent=1))
        os.replace(draft, self._path)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
