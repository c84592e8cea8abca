"""A probe: the first steps of a job that is not there yet, which publishes nothing."""

import time

from osora_core.training import Checkpoint, Outcome, Progress
from registry import jobs
from registry.context import Registry
from registry.jobs import Attempt, LeaseLostError, probes
from worker.attempt import METRICS_SECONDS, REASONS, Runner, run_with
from worker.patience import Patience
from worker.places import Place
from worker.points import reached
from worker.records import Records
from worker.reports import Report, Reports, Signal
from worker.threads import EngineThread
from worker.work import Work


def run_probe(registry: Registry, engine: EngineThread, attempt: Attempt, reports: Reports, place: Place) -> None:
    """Run a probe to its end. Never raises for what is wrong with the job: that is written to the probe."""
    run_with(_ProbeRunner, registry, engine, attempt, reports, place)


class _ProbeRunner(Runner):
    """Keeps the loss of every step; where it has to leave, there is nothing to save."""

    def __init__(
        self, records: Records, engine: EngineThread, reports: Reports, patience: Patience, place: Place
    ) -> None:
        super().__init__(records, engine, reports, patience, place)
        self.told: list[Progress] = []

    def _goes_on_after(self, report: Report | Signal, work: Work) -> bool:
        match report:
            case Progress():
                self._progress(report)
            case Checkpoint():
                pass
            case Outcome():
                self._tell()
                self.records.write(lambda session: probes.complete(session, self.attempt))
                return False
            case _:
                return super()._goes_on_after(report, work)
        return True

    def _progress(self, progress: Progress) -> None:
        reached("stepped", self.attempt.job_id)
        self.told.append(progress)
        if time.monotonic() - self.written_at >= METRICS_SECONDS:
            self._tell()
            self.written_at = time.monotonic()

    def _tell(self) -> None:
        told = self.told
        data = {
            "train_loss": [progress.loss for progress in told],
            "tokens": sum(progress.step_tokens for progress in told),
            "seconds": sum(progress.step_seconds for progress in told),
        }
        latest = told[-1]
        self.records.write(
            lambda session: probes.record(
                session,
                self.attempt,
                data,
                step=latest.step,
                trained_tokens=latest.trained_tokens,
                compute_seconds=latest.compute_seconds,
            )
        )

    def _leave(self, signal: Signal, work: Work | None) -> None:
        if signal == "lost":
            raise LeaseLostError("its lease is another's or nobody's")
        self.patience.leaving = True
        self.records.write(lambda session: jobs.release(session, self.attempt, REASONS[signal]))
