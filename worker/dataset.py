"""The rows of an attempt: fetched, rendered, and those to validate on held out where no file has them."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

import osora_data
from osora_common.hyperparameters import Overlong
from osora_core.data import Renderer, Row, rows_of
from osora_core.data.holding_out import hold_out
from osora_core.data.overlong import listed
from osora_core.data.reading import Rendered, render_rows
from osora_core.errors import CorruptArtifact, DataError
from osora_core.runtime import Runtime
from osora_core.training import methods
from registry.jobs import Attempt, FileRef, Remark, RowCounts
from worker.reading import Bounds, Turns
from worker.records import Records
from worker.reports import Reports

# Of which an event tells programs.
_LINES = 100


@dataclass(frozen=True)
class Dataset:
    """What an attempt trains and validates on, from which files' rows, and of how many tokens at most each row is."""

    train: list[Row]
    valid: list[Row]
    files: list[Rendered[Row]]
    """Of the training file and, if there is one, of the validation file."""
    limit: int
    is_held_out: bool
    """Whether the rows to validate on are the training file's."""

    def counts(self, trained: int) -> RowCounts:
        """For the job's plan, where so many rows are trained on."""
        return {
            "training": trained,
            "validation": len(self.valid),
            "dropped": sum(len(file.dropped) for file in self.files),
            "truncated": sum(len(file.truncated) for file in self.files),
        }

    def remarks(self) -> Iterator[Remark]:
        """What the job's history says of it."""
        for kind, file in zip(("", " of the validation file"), self.files, strict=False):
            rows = f"of {len(file.rows) + len(file.dropped):,} rows{kind}"
            if file.dropped:
                yield self._told("Dropped", file.dropped, f"{rows} longer than")
            if file.truncated:
                yield self._told("Truncated", file.truncated, f"{rows} to")
        if self.is_held_out:
            held, count = len(self.valid), len(self.train) + len(self.valid)
            yield Remark(f"Held out {held:,} of {count:,} rows ({held / count:.1%}) to validate on")

    def _told(self, verb: str, lines: list[int], rows: str) -> Remark:
        message = f"{verb} {len(lines):,} {rows} {self.limit:,} tokens: {listed(lines)}"
        return Remark(message, "warn", {"lines": lines[:_LINES]})


def renderer_of(attempt: Attempt, runtime: Runtime) -> Renderer:
    """What renders the attempt's rows and prompts."""
    longest = runtime.max_length
    limit = min(attempt.osora.get("max_length") or longest, longest)
    truncates = attempt.osora.get("overlong") == "truncate"
    return Renderer(runtime.tokenizer, limit, base_length=longest, truncates=truncates)


def read_dataset(records: Records, renderer: Renderer, reports: Reports, turns: Turns) -> Dataset:
    """All rows of an attempt. Raises UserError for what cannot be trained on, CorruptArtifact for bytes that have
    changed, `Interruption` when a signal comes meanwhile."""
    attempt = records.attempt
    refs = [file for file in (attempt.training_file, attempt.validation_file) if file is not None]
    files = [_rendered(records, file, renderer, reports, turns) for file in refs]
    train, valid = files[0].rows, files[1].rows if len(files) > 1 else []
    share = attempt.osora.get("validation_share")
    if share is not None:
        have_prompts = attempt.training_file.format != "text"
        train, valid = reports.aside(lambda _: hold_out(train, share, attempt.seed, have_prompts=have_prompts))
    return Dataset(train, valid, files, renderer.max_length, share is not None)


def _rendered(records: Records, file: FileRef, renderer: Renderer, reports: Reports, turns: Turns) -> Rendered[Row]:
    """A large file takes longer to fetch and to render, and even one long row, than a tenant who cancels or a worker
    that stops will wait: so the attempt does not wait for it."""
    data = records.stored(lambda: reports.aside(lambda _: records.store.get(file.object_key)))
    method = methods.named(records.attempt.method)
    overlong: Overlong = records.attempt.osora.get("overlong", "refuse")
    settings = records.settings

    def read(left: threading.Event) -> Rendered[Row]:
        with turns.taken(records.attempt.tenant_id, left):
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise CorruptArtifact(f"file {file.id} is not what was uploaded: its hash has changed")
            bounds = Bounds(settings.job_tokens, settings.reading_seconds)

            def render(row: osora_data.Row) -> Row:
                bounds.check(row)
                rendered = method.render(row, renderer)
                bounds.count(rendered)
                return rendered

            return render_rows(takewhile(lambda _: not left.is_set(), rows_of(data)), render, overlong)

    try:
        return reports.aside(read)
    except DataError as error:
        error.message = f"file {file.id}, {error}"
        raise
