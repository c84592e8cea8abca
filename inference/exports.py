"""Adapters for the world outside, made where base and basis are: as a LoRA, or merged into a plain checkpoint."""

import os
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from inference.schemas import ExportRequest
from osora_core import export
from osora_core.adapter import READABLE, Adapter, pack
from osora_core.lora import Lora
from osora_core.runtime import Runtime


class Exporter:
    """Makes one export at a time: a merged one takes the base's memory once more, and its disk space twice."""

    def __init__(self, fetch: Callable[[str], bytes | memoryview], base_paths: Mapping[str, str]) -> None:
        self._fetch = fetch
        self._base_paths = base_paths
        self._turn = threading.Lock()

    def make(self, runtime: Runtime, request: ExportRequest) -> Path:
        """A ZIP in the temporary directory, for the caller to delete.

        Raises CorruptArtifact or IdentityMismatch if the adapter is not what was named, UserError if it cannot be had
        in this form.
        """
        descriptor, name = tempfile.mkstemp(prefix="osora-export-", suffix=".zip")
        os.close(descriptor)
        path = Path(name)
        try:
            with self._turn:
                adapter = self._read(request)
                if request.format == "lora" and isinstance(adapter, Adapter):
                    path.write_bytes(pack(export.to_lora(adapter, runtime.basis, base=runtime.public_name)))
                else:
                    self._merge(adapter, runtime, path)
        except BaseException:
            path.unlink()
            raise
        return path

    def _read(self, request: ExportRequest) -> Adapter | Lora:
        data = self._fetch(request.adapter.object_key)
        kind = Lora if request.adapter.type == "lora" else Adapter
        return kind.from_zip(data, request.adapter.sha256)

    def _merge(self, adapter: Adapter | Lora, runtime: Runtime, path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="osora-export-") as folder:
            export.merge(adapter, runtime.basis, Path(folder), base=self._base_paths[runtime.name])
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                for file in sorted(Path(folder).iterdir()):
                    file.chmod(READABLE)
                    archive.write(file, file.name)
