"""What every benchmark shares: `--json` and `--device`, the description of the machine, rows and targets in one shape.

The JSON is `{"machine": {...}, "rows": [{...}], "targets": [{"name", "value", "unit", "target", "met"}]}`. A benchmark
fills a Report as it goes, so that what was measured before something failed is there all the same.
"""

import argparse
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "peft")


def parser(description: str | None, *, devices: tuple[str, ...] = ("cpu", "cuda")) -> argparse.ArgumentParser:
    """A command line with the two options that every benchmark takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--device", choices=devices, default=devices[0], help="where to measure (default: %(default)s)")
    made.add_argument("--json", type=Path, metavar="PATH", help="also write machine, rows and targets to PATH")
    return made


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured with: processor, cores, accelerator and versions."""
    described: dict[str, Any] = {
        "device": device,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        described["accelerator"] = properties.name
        described["accelerator_gib"] = round(properties.total_memory / 2**30, 1)
    return described


def _processor() -> str:
    """The processor's own name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass
class Report:
    """Rows and targets of one run; every row is printed when it comes.

    `columns` maps a row's key to the width and format of its column, e.g. `{"shape": "14", "seconds": "10.3f"}`; keys
    without a column are only written to the JSON.
    """

    device: str
    columns: Mapping[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = machine(self.device)
        print("  ".join(f"{name:>{_width(spec)}}" for name, spec in self.columns.items()), flush=True)

    def add(self, **row: Any) -> None:
        """Keep a row and print it. A value that does not fit its column's format is printed as it is."""
        self.rows.append(row)
        print("  ".join(_cell(row.get(name), spec) for name, spec in self.columns.items()), flush=True)

    @contextmanager
    def guard(self, **row: Any) -> Iterator[None]:
        """Report what fails inside as a failed row and go on: one row's trouble must not cost the others."""
        try:
            yield
        except Exception as error:
            self.add(**row, failed=f"{type(error).__name__}: {error}")
            print(f"  failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)

    def target(self, name: str, value: float | None, unit: str, target: str, met: bool) -> None:
        """Keep one target's line and print it. `target` says what is wanted, such as "<= 25"; None was not measured."""
        self.targets.append({"name": name, "value": value, "unit": unit, "target": target, "met": met})
        shown = "not measured" if value is None else f"{value:.4g} {unit}"
        print(f"{'met   ' if met else 'MISSED'}  {name}: {shown} (target {target} {unit})", flush=True)

    def write(self, path: Path | None) -> None:
        """Write the JSON, whole or not at all; nothing without a path."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": self.machine, "rows": self.rows, "targets": self.targets}
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.replace(path)


def _width(spec: str) -> int:
    width = re.match(r"[<>^]?(\d+)", spec)
    assert width is not None, spec
    return int(width[1])


def _cell(value: Any, spec: str) -> str:
    if value is None:
        return f"{'-':>{_width(spec)}}"
    try:
        return f"{value:>{spec}}"
    except ValueError:
        return f"{value!s:>{_width(spec)}}"
