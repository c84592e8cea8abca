"""What a job's history says in words about its training."""

from collections.abc import Iterator

from osora_core.training import Outcome, TrainingJob


def plan(job: TrainingJob) -> str:
    """What is going to be trained."""
    spec = job.spec
    return (
        f"Training {job.total_steps} steps: {len(job.train)} rows, {spec.epochs} epochs, batch size {spec.batch_size}, "
        f"learning rate {spec.learning_rate:g}, rank {spec.rank}" + (", from an adapter" if job.start else "")
    )


def remarks(job: TrainingJob, outcome: Outcome) -> Iterator[str]:
    """When it ended, if that was early, and which state was kept, if that was chosen."""
    if outcome.step < job.total_steps:
        patience = job.spec.early_stopping_patience
        epochs = "an epoch" if patience == 1 else f"{patience} epochs"
        yield (
            f"Stopped after step {outcome.step} of {job.total_steps}: the validation loss has not fallen for {epochs}"
        )
    best = outcome.curve.best
    if best is not None and job.spec.keep == "best":
        yield f"Keeping the state of step {best.step}: its validation loss, {best.loss:.4f}, is the lowest"
