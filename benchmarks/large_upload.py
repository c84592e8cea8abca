"""How much memory the API takes for a large file, sent in parts and in one piece by OpenAI's own client.

    python -m benchmarks.large_upload
    python -m benchmarks.large_upload --mebibytes 1024 --object-store db:

The API is a process of its own, as `osora serve` starts it, with SQLite. Its memory is what Linux says of the process:
`before` and `after` are the resident set as it stands, `peak` is the largest that it was in between (VmHWM).
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI
from openai.types import FileObject

from benchmarks.report import Report, parser
from registry import migrate, tenants
from registry.context import Registry
from registry.settings import Settings

MIB = 1024 * 1024
COLUMNS = {
    "sent": "13",
    "mebibytes": "9d",
    "seconds": "7.1f",
    "before_mib": "10.1f",
    "peak_mib": "8.1f",
    "after_mib": "9.1f",
}
GROWTH_TARGET_MIB = 128
_SAID = b"x" * 926
_ROW = b'{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "billing"}]}\n' % _SAID


def main() -> None:
    """The command."""
    options = parser(__doc__, devices=("cpu",))
    options.add_argument("--mebibytes", type=int, default=128, help="size of the file (default: %(default)s)")
    options.add_argument("--object-store", help="where objects go, as in OSORA_OBJECT_STORE (default: files)")
    asked = options.parse_args()
    report = Report(asked.device, COLUMNS)
    with tempfile.TemporaryDirectory(prefix="osora-large-upload-") as folder:
        path = Path(folder) / "rows.jsonl"
        _write(path, asked.mebibytes * MIB)
        with _api(Path(folder), path.stat().st_size, asked.object_store) as (process, client):
            client.models.list()  # what is loaded with the first request is not the file's
            for sent, upload in (("in parts", _in_parts), ("in one piece", _in_one_piece)):
                _measure(report, process, sent, path, lambda upload=upload: upload(client, path))
    growth = max(row["peak_mib"] - row["before_mib"] for row in report.rows)
    report.target(
        "memory of the API above what it had", growth, "MiB", f"<= {GROWTH_TARGET_MIB}", growth <= GROWTH_TARGET_MIB
    )
    report.write(asked.json)


def _in_parts(client: OpenAI, path: Path) -> FileObject:
    file = client.uploads.upload_file_chunked(file=path, mime_type="text/jsonl", purpose="fine-tune").file
    assert file is not None
    return file


def _in_one_piece(client: OpenAI, path: Path) -> FileObject:
    return client.files.create(file=path, purpose="fine-tune")


def _measure(
    report: Report, process: subprocess.Popen[str], sent: str, path: Path, upload: Callable[[], FileObject]
) -> None:
    status = Path(f"/proc/{process.pid}")
    (status / "clear_refs").write_text("5")  # the peak begins anew
    before, began = _mebibytes(status, "VmRSS"), time.monotonic()
    file = upload()
    assert file.bytes == path.stat().st_size
    report.add(
        sent=sent,
        mebibytes=file.bytes // MIB,
        seconds=time.monotonic() - began,
        before_mib=before,
        peak_mib=_mebibytes(status, "VmHWM"),
        after_mib=_mebibytes(status, "VmRSS"),
    )


def _mebibytes(status: Path, name: str) -> float:
    line = next(line for line in (status / "status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _write(path: Path, size: int) -> None:
    block = _ROW * (MIB // len(_ROW))
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)


@contextmanager
def _api(folder: Path, size: int, object_store: str | None) -> Iterator[tuple[subprocess.Popen[str], OpenAI]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OSORA_")},
        "OSORA_DATA_DIR": str(folder / "data"),
        "OSORA_PORT": str(port),
        "OSORA_LOG_LEVEL": "WARNING",
        "OSORA_MAX_UPLOAD_BYTES": str(size),
        **({"OSORA_OBJECT_STORE": object_store} if object_store else {}),
    }
    settings = Settings(data_dir=folder / "data")
    migrate.upgrade(settings.database_url)
    with Registry.open(settings) as registry, registry.transaction() as session:
        _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, "large upload", ["read", "train"])
    process = subprocess.Popen([sys.executable, "-P", "-m", "api"], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    with process:
        try:
            assert "ready\n" in process.stderr, "the API did not start"
            with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0) as client:
                yield process, client
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
