"""What it costs to find what a model's name means, as every request does: an adapter's name against aliases.

    python -m benchmarks.names
    python -m benchmarks.names --database-url postgresql+psycopg://user@host/name

In a database of its own (SQLite) or an empty one (PostgreSQL), with so many adapters, and an alias of each. The kinds
of names take turns, so that whatever else the machine does is shared; the median counts.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Report, parser
from registry import migrate
from registry.context import Registry
from registry.ids import model_name, new_id
from registry.models import Adapter, Job
from registry.names import aliases
from registry.references import call
from registry.settings import Settings
from registry.tenants import Principal, authenticate, create_key

TARGET = 1.5


@dataclass(frozen=True)
class Kind:
    """A kind of name, and one of it."""

    label: str
    name: str


def fill(registry: Registry, count: int) -> tuple[Principal, list[Kind]]:
    """So many adapters with an alias each; the kinds of names that are measured."""
    with registry.transaction() as session:
        _, key = create_key(session, "default", "benchmark", ["admin"])
    with registry.transaction() as session:
        principal = authenticate(session, key)
        names = [_adapter(principal, number) for number in range(count)]
        session.add_all(job for _, job, _ in names)
        session.flush()
        session.add_all(adapter for _, _, adapter in names)
        session.flush()
        for name, _, _ in names:
            aliases.put(session, principal, f"alias-of-{name[-16:]}", {name: 1}, bases=())
    middle = names[count // 2][0]
    wanted = {"ft:gpt-4o-mini-2024-07-18:acme::AbC12345": 1, "split-of-2": 2, "split-of-10": 10}
    with registry.transaction() as session:
        for alias, targets in wanted.items():
            weights = {name: 10 for name, _, _ in names[count // 2 :][:targets]}
            aliases.put(session, principal, alias, weights, bases=())
    return principal, [
        Kind("adapter's name", middle),
        Kind("alias of one", "ft:gpt-4o-mini-2024-07-18:acme::AbC12345"),
        Kind("alias of 2", "split-of-2"),
        Kind("alias of 10", "split-of-10"),
    ]


def _adapter(principal: Principal, number: int) -> tuple[str, Job, Adapter]:
    job = Job(
        id=new_id("ftjob-"),
        tenant_id=principal.tenant_id,
        base="osora-tiny",
        training_file_id="file-none",
        seed=0,
        metadata_={},
        hyperparameters={},
        osora={},
        status="succeeded",
        max_attempts=1,
    )
    adapter_id = new_id("adp-")
    adapter = Adapter(
        id=adapter_id,
        tenant_id=principal.tenant_id,
        job_id=job.id,
        name=model_name("osora-tiny", "default", f"number-{number}", adapter_id),
        base="osora-tiny",
        base_fingerprint="b" * 64,
        basis_fingerprint="c" * 64,
        rank=64,
        parameters=36_864,
        target_modules=["q_proj", "v_proj"],
        object_key=f"adapters/{job.id}/1/adapter.zip",
        sha256="a" * 64,
        bytes=152_480,
    )
    return adapter.name, job, adapter


def measure(registry: Registry, principal: Principal, kinds: list[Kind], rounds: int) -> dict[str, list[float]]:
    """Seconds of each request for a name, by kind."""
    taken: dict[str, list[float]] = {kind.label: [] for kind in kinds}
    for number in range(rounds):
        for kind in kinds:
            begun = time.perf_counter()
            with registry.reading() as session:
                call(session, principal, kind.name, f"user-{number}".encode())
            taken[kind.label].append(time.perf_counter() - begun)
    return taken


def main() -> None:
    """The command."""
    arguments = parser(__doc__, devices=("cpu",))
    arguments.add_argument("--database-url", help="an empty PostgreSQL database (default: SQLite, for the time being)")
    arguments.add_argument("--adapters", type=int, default=500, help="how many (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=2000, help="how many of each kind (default: %(default)s)")
    options = arguments.parse_args()
    report = Report(options.device, {"name": "16", "microseconds": "12.0f", "p95": "8.0f", "against": "8.2f"})
    with tempfile.TemporaryDirectory() as folder:
        url = options.database_url or f"sqlite:///{Path(folder, 'osora.db')}"
        migrate.upgrade(url)
        with Registry.open(Settings(data_dir=Path(folder), database_url=url)) as registry:
            principal, kinds = fill(registry, options.adapters)
            taken = measure(registry, principal, kinds, options.rounds)
    medians = {label: statistics.median(seconds) for label, seconds in taken.items()}
    first = medians[kinds[0].label]
    for label, seconds in taken.items():
        worst = statistics.quantiles(seconds, n=20)[-1]
        report.add(name=label, microseconds=medians[label] * 1e6, p95=worst * 1e6, against=medians[label] / first)
    ratio = medians[kinds[1].label] / first
    report.target("alias of one against an adapter's name", ratio, "times", f"<= {TARGET}", ratio <= TARGET)
    report.write(options.json)


if __name__ == "__main__":
    main()
