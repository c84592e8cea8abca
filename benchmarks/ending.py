"""What a benchmark that trains through the engine watches it with."""

from typing import Any


class Ending:
    """Observes a job or a sweep, and keeps its end."""

    outcome: Any = None
    error: Exception | None = None

    def progress(self, progress: Any) -> None: ...
    def evaluated(self, evaluation: Any) -> None: ...
    def sampled(self, samples: Any) -> None: ...
    def stepped_down(self, pass_tokens: int) -> None: ...

    def checkpoint(self, checkpoint: Any) -> None: ...
    def narrowed(self, rung: Any) -> None: ...

    def finished(self, outcome: Any) -> None:
        self.outcome = outcome

    def failed(self, error: Exception) -> None:
        self.error = error
