"""Adapters for the world outside, made where base and basis are: as a LoRA, or merged into a checkpoint or a GGUF."""

import os
import re
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from inference.errors import ServerError
from inference.gguf_readme import describe
from inference.schemas import ExportRequest
from osora_common.scratch import Scratch
from osora_core import export
from osora_core.adapter import READABLE, Adapter, pack
from osora_core.export.gguf_family import exact_length, family_of
from osora_core.export.modelfile import modelfile
from osora_core.lora import Lora
from osora_core.runtime import Runtime

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


class Exporter:
    """Makes one export at a time: a merged one takes the base's memory once more, and its disk space twice."""

    def __init__(
        self, fetch: Callable[[str], bytes | memoryview], base_paths: Mapping[str, str], scratch: Scratch
    ) -> None:
        self._fetch = fetch
        self._base_paths = base_paths
        self._scratch = scratch
        self._turn = threading.Lock()

    def make(self, runtime: Runtime, request: ExportRequest) -> Path:
        """A ZIP among the temporary files, for the caller to delete.

        Raises CorruptArtifact or IdentityMismatch if the adapter is not what was named, UserError if it cannot be had
        in this form, ServerError 507 where the disk has no room for it.
        """
        descriptor, name = tempfile.mkstemp(prefix="export-", suffix=".zip", dir=self._scratch.folder)
        os.close(descriptor)
        path = Path(name)
        try:
            with self._turn:
                if request.format != "lora":
                    _require_room(path.parent, runtime)
                adapter = self._read(request)
                if request.format == "lora" and isinstance(adapter, Adapter):
                    path.write_bytes(pack(export.to_lora(adapter, runtime.basis, base=runtime.public_name)))
                else:
                    write = (
                        self._merge if request.format == "merged" else partial(self._gguf, name=request.adapter.name)
                    )
                    with tempfile.TemporaryDirectory(prefix="export-", dir=self._scratch.folder) as folder:
                        write(adapter, runtime, Path(folder))
                        _zip(Path(folder), path)
        except BaseException:
            path.unlink()
            raise
        return path

    def _read(self, request: ExportRequest) -> Adapter | Lora:
        data = self._fetch(request.adapter.object_key)
        kind = Lora if request.adapter.type == "lora" else Adapter
        return kind.from_zip(data, request.adapter.sha256)

    def _merge(self, adapter: Adapter | Lora, runtime: Runtime, folder: Path) -> None:
        export.merge(adapter, runtime.basis, folder, base=self._base_paths[runtime.name])

    def _gguf(self, adapter: Adapter | Lora, runtime: Runtime, folder: Path, *, name: str) -> None:
        """One file, with what Ollama and people want to know of it."""
        stem = _NOT_IN_NAMES.sub("-", name)
        file = folder / f"{stem}.gguf"
        export.to_gguf(adapter, runtime.basis, file, base=self._base_paths[runtime.name], name=stem)
        ends = runtime.tokenizer.convert_ids_to_tokens(sorted(runtime.eos_ids))
        (folder / "Modelfile").write_text(modelfile(runtime.tokenizer, file.name, ends), encoding="utf-8")
        length = exact_length(runtime.config, family_of(runtime.config))
        readme = describe(stem, runtime.public_name, bytes=file.stat().st_size, length=length)
        (folder / "README.md").write_text(readme, encoding="utf-8")


def _require_room(folder: Path, runtime: Runtime) -> None:
    needed, free = 2 * runtime.bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise ServerError(
            507, "server_error", "storage_full",
            f"an export of {runtime.name} takes {needed:,} bytes of disk while it is made, and {free:,} are free",
            next_action="have whoever runs the service make room in the inference server's OSORA_DATA_DIR",
        )  # fmt: skip


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            file.chmod(READABLE)
            archive.write(file, file.name)
