"""Fine-tuning jobs."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Unpack

from osora.errors import OsoraError
from osora.options import JobFields, Order
from osora.schemas import Checkpoint, DryRun, Event, File, Job, JobStatus
from osora.sdk.call import Call, Each, Steps, given, once, path
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.files import content_of, saved
from osora.sdk.paging import Listing
from osora.sdk.streams import Follow

_PATIENCE_SECONDS = 60.0
# What a name may not have on one system or another.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


class Jobs(Resource[Mode]):
    """Fine-tuning jobs."""

    @method
    def create(
        self, model: str, training_file: str, *, idempotency_key: str | None = None, **fields: Unpack[JobFields]
    ) -> Call[Job]:
        """Queue a job on uploaded files; with an `idempotency_key` only once within a day, however often it is sent.

        Args:
            model: the base, or an adapter to go on from.
            validation_file: another uploaded file, to measure on.
            suffix: becomes a part of the adapter's name.
            method: {"type": "dpo"} for a file of preferences.
            hyperparameters: n_epochs, batch_size, learning_rate_multiplier.
            osora: the rest: rank, learning_rate (a number, a list of them, "sweep" or "auto"), overlong, ….
        """
        return Call("POST", "/jobs", json=_body(model, training_file, fields), headers=once(idempotency_key))

    @method
    def dry_run(
        self, model: str, training_file: str, *, probe: int | None = None, **fields: Unpack[JobFields]
    ) -> Call[DryRun]:
        """What `create` with the same arguments would do, how long it would take, and what is to be said against it.

        No job is made, and the errors are the same. `probe`: so many real steps are taken, and thrown away.
        """
        params = {"dry_run": True} | given(probe=probe)
        return Call("POST", "/jobs", json=_body(model, training_file, fields), params=params)

    @iterated
    def list(
        self,
        limit: int | None = None,
        after: str | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        status: JobStatus | None = None,
        order: Order | None = None,
    ) -> Listing[Job]:
        """Newest first: all of them, or at most `limit`, after the one with this id.

        With `metadata`, only those that have all of these pairs.
        """
        pairs = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return Listing("/jobs", limit, after, given(status=status, order=order) | pairs)

    @method
    def get(self, job_id: str) -> Call[Job]:
        """The job as it is now."""
        return _get(job_id)

    @method
    def cancel(self, job_id: str) -> Call[Job]:
        """End it: at once while it waits, within seconds while it runs."""
        return Call("POST", path("/jobs/{}/cancel", job_id))

    @method
    def pause(self, job_id: str) -> Call[Job]:
        """Set it aside, after a checkpoint if it runs."""
        return Call("POST", path("/jobs/{}/pause", job_id))

    @method
    def resume(self, job_id: str) -> Call[Job]:
        """Queue it again; it goes on from its newest checkpoint."""
        return Call("POST", path("/jobs/{}/resume", job_id))

    @iterated
    def events(
        self,
        job_id: str,
        after: str | None = None,
        patience_seconds: float = _PATIENCE_SECONDS,
        on_lost: Callable[[OsoraError], None] | None = None,
    ) -> Follow:
        """Events from the first (or after the one named), live until the job has ended.

        Survives lost connections, of each of which `on_lost` hears, and a restarting service; gives up after
        `patience_seconds` without either.
        """
        return Follow(_events(job_id), after, patience_seconds, on_lost)

    @iterated
    def list_events(
        self, job_id: str, limit: int | None = None, after: str | None = None, *, order: Order | None = None
    ) -> Listing[Event]:
        """The events so far, newest first, without waiting: all of them, or at most `limit`."""
        return Listing(_events(job_id), limit, after, given(order=order), page=1000)

    @iterated
    def checkpoints(
        self, job_id: str, limit: int | None = None, after: str | None = None, *, order: Order | None = None
    ) -> Listing[Checkpoint]:
        """Newest first. Each can be called: `generate(..., adapter=checkpoint["fine_tuned_model_checkpoint"])`."""
        return Listing(path("/jobs/{}/checkpoints", job_id), limit, after, given(order=order))

    @method
    def wait(
        self,
        job_id: str,
        on_event: Callable[[Event], object] | None = None,
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
        on_lost: Callable[[OsoraError], None] | None = None,
    ) -> Steps[Job]:
        """Return the job once it has ended, whichever way: see its `status`, and its `error` if it failed.

        `on_event` is told each event, from the first on; `on_lost` and `patience_seconds` are those of `events`.
        """
        yield Each(Follow(_events(job_id), None, patience_seconds, on_lost), on_event or _ignore)
        job: Job = yield _get(job_id)
        return job

    @method
    def results(self, job_id: str, folder: str | os.PathLike[str]) -> Steps[tuple[Path, ...]]:
        """Write the job's result files (its metrics by step, as CSV) into a folder; returns their paths."""
        job: Job = yield _get(job_id)
        paths = []
        for file_id in job.get("result_files", []):
            file: File = yield Call("GET", path("/files/{}", file_id))
            name = _NOT_IN_NAMES.sub("_", file["filename"]).strip(". ") or file_id
            target = Path(folder, name)
            yield from saved(content_of(file_id), target)
            paths.append(target)
        return tuple(paths)


def _body(model: str, training_file: str, fields: JobFields) -> dict[str, Any]:
    return given(model=model, training_file=training_file, **fields)


def _get(job_id: str) -> Call[Job]:
    return Call("GET", path("/jobs/{}", job_id))


def _events(job_id: str) -> str:
    return path("/jobs/{}/events", job_id)


def _ignore(_: Event) -> None:
    pass
