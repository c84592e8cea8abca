"""How fast training files are read, checked and looked over for what they are warned of, and in what memory.

    python -m benchmarks.files
    python -m benchmarks.files --mebibytes 512 --containers jsonl json jsonl.gz jsonl.zst csv parquet --json files.json

Each file goes through what an upload goes through, in a process of its own that loads nothing else. `mb_s` is 10^6
bytes of rows, as JSON Lines, a second of processor time; `peak_mib` is the process's largest resident set. Rows are
chats of two to eight messages, no two alike; one in ten has further keys, and one in a hundred is wrong.
"""

import csv
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import zstandard
from pyarrow import parquet

from benchmarks.report import Report, parser

MIB = 1024 * 1024
COLUMNS = {
    "container": "10",
    "mebibytes": "9.0f",
    "rows": "9d",
    "problems": "8d",
    "seconds": "7.1f",
    "cpu_s": "6.1f",
    "mb_s": "6.1f",
    "peak_mib": "8.1f",
}
SPEED_TARGET, MEMORY_TARGET_MIB = 40, 300
_READ = """
import json, sys, time
from osora_data import check
from osora_data.report import Observer
began, cpu = time.perf_counter(), time.process_time()
with open(sys.argv[1], "rb") as file:
    observer = Observer()
    checked = check(file, on_row=observer)
warnings = observer.warnings()
print(json.dumps({
    "container": checked.container, "rows": checked.rows, "problems": checked.problem_count,
    "seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu,
    "peak_mib": next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024,
}))
"""
_TEXT = """the parcel is late and I would like to know where it went because tracking says “delivered” since Monday
morning order refund please invoice Größe naïve café 東京 😀 category: shipping, priority: high{"a":"""
_WORDS = _TEXT.split()


def main() -> None:
    """The command."""
    options = parser(__doc__, devices=("cpu",))
    options.add_argument("--mebibytes", type=int, default=64, help="of rows, as JSON Lines (default: %(default)s)")
    options.add_argument("--containers", nargs="+", choices=list(_WRITERS), default=list(_WRITERS), metavar="NAME")
    asked = options.parse_args()
    report = Report(asked.device, COLUMNS)
    with tempfile.TemporaryDirectory(prefix="osora-files-") as folder:
        lines = Path(folder, "rows.jsonl")
        _write_lines(lines, asked.mebibytes * MIB)
        for name in asked.containers:
            path = Path(folder, "file")
            _WRITERS[name](lines, path)
            with report.guard(container=name):
                _measure(report, path, lines.stat().st_size)
    for row in report.rows:
        if row.get("container") == "jsonl":
            speed, peak = row["mb_s"], row["peak_mib"]
            report.target("speed of JSON Lines on one core", speed, "MB/s", f">= {SPEED_TARGET}", speed >= SPEED_TARGET)
            report.target("memory of JSON Lines", peak, "MiB", f"< {MEMORY_TARGET_MIB}", peak < MEMORY_TARGET_MIB)
    report.write(asked.json)


def _measure(report: Report, path: Path, size: int) -> None:
    told = subprocess.run([sys.executable, "-c", _READ, str(path)], check=True, capture_output=True, text=True)
    found = json.loads(told.stdout)
    report.add(**found, mebibytes=size / MIB, mb_s=size / 1e6 / found["cpu_s"])


def _rows(random: Random) -> Iterator[dict[str, Any]]:
    for number in range(sys.maxsize):
        roles = ["user", "assistant"] * random.randint(1, 4)
        row: dict[str, Any] = {"messages": [{"role": role, "content": _text(random)} for role in roles]}
        if number % 10 == 3:
            row |= {"id": f"row-{number}", "source": "support"}
        if number % 100 == 50:
            row["messages"][0]["role"] = "robot"
        yield row


def _text(random: Random) -> str:
    return random.choice(" \n").join(random.choices(_WORDS, k=random.randint(5, 120)))


def _write_lines(path: Path, size: int) -> None:
    random = Random(0)
    rows = _rows(random)
    block = [json.dumps(next(rows), ensure_ascii=random.random() < 0.2) + "\n" for _ in range(20_000)]
    with path.open("w", encoding="utf-8", newline="") as file:
        number = 0
        while file.tell() < size:
            for line in random.sample(block, 1000):
                number += 1
                file.write(line.replace('"content": "', f'"content": "{number} ', 1))  # no row comes twice


def _write_array(lines: Path, path: Path) -> None:
    with lines.open("rb") as source, path.open("wb") as out:
        for number, line in enumerate(source):
            out.write((b",\n" if number else b"[") + line.rstrip())
        out.write(b"]")


def _write_csv(lines: Path, path: Path) -> None:
    with lines.open("rb") as source, path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "messages"])
        for row in map(json.loads, source):
            writer.writerow([row.get("id"), json.dumps(row["messages"], ensure_ascii=False)])


def _write_parquet(lines: Path, path: Path) -> None:
    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    schema = pyarrow.schema([("id", pyarrow.string()), ("messages", pyarrow.list_(message))])
    with lines.open("rb") as source, parquet.ParquetWriter(path, schema) as out:
        while block := [json.loads(line) for line in islice(source, 10_000)]:
            out.write_table(pyarrow.Table.from_pylist(block, schema))


def _write_packed(open_packed: Callable[..., Any]) -> Callable[[Path, Path], None]:
    def write(lines: Path, path: Path) -> None:
        with lines.open("rb") as source, open_packed(path, "wb") as out:
            shutil.copyfileobj(source, out, MIB)

    return write


_WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "jsonl": lambda lines, path: shutil.copyfile(lines, path) and None,
    "jsonl.gz": _write_packed(gzip.open),
    "jsonl.zst": _write_packed(zstandard.open),
    "json": _write_array,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


if __name__ == "__main__":
    main()
