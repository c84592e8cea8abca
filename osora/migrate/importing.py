"""Fine-tuning jobs of the other service, made again here. Every step finds out first whether it was done before."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from osora.errors import OsoraAPIError
from osora.migrate.copying import FileCopies
from osora.migrate.openai_api import OpenAIClient
from osora.migrate.plan import ORIGIN, Difference, NotImportedError, Plan, plan
from osora.schemas import ENDED, Job
from osora.sdk import Osora

_REFUSED = (400, 404, 409, 422)


@dataclass
class Outcome:
    """How far a job has come.

    status: that of the job here, or `planned`, `waiting` (for the job that it goes on from) or `left out`.
    alias: whether the old name means the adapter (`set`), was given another meaning by somebody (`kept`), or cannot be
    one here (`refused`).
    """

    source: str
    old_name: str | None
    status: str
    job: str | None = None
    adapter: str | None = None
    alias: Literal["set", "kept", "refused"] | None = None
    reason: str | None = None
    next_action: str | None = None
    line: int | None = None
    training_file: str | None = None
    validation_file: str | None = None
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_wrong(self) -> bool:
        """Whether it will not come by itself."""
        return self.status in ("left out", *_GONE) or self.alias == "refused"

    @property
    def is_going(self) -> bool:
        """Whether more will come of it by itself, or once a job has ended."""
        return self.status == "waiting" or (self.job is not None and self.status not in ENDED)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Importer:
    """Brings jobs of an account to one base of a service.

    Args:
        jobs: all of the account, so that a job which goes on from another is traced to it.
        keep_hyperparameters: ask for epochs and batch size as they were there, or leave them to this service.
        tell: hears what was done, in sentences.
    """

    def __init__(
        self,
        source: OpenAIClient,
        osora: Osora,
        jobs: list[dict[str, Any]],
        base: str,
        *,
        keep_hyperparameters: bool = True,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._osora = osora
        self._base = base
        self._keep = keep_hyperparameters
        self._tell = tell
        self._files = FileCopies(source, osora, tell)
        self._by_model = {job["fine_tuned_model"]: job for job in jobs if job.get("fine_tuned_model")}
        self._made: dict[str, str] = {}

    def look(self, source: dict[str, Any]) -> Outcome:
        """What `bring` would do; nothing is done."""
        return self._guarded(source, self._look)

    def bring(self, source: dict[str, Any]) -> Outcome:
        """Copies the files, makes the job, sets the alias: what of it is still to be done and can be.

        A job here that failed or was cancelled is made again, unless that happened to one that this object made.
        Raises what says that nothing more can be done at all, for any job.
        """
        return self._guarded(source, self._bring)

    def _guarded(self, source: dict[str, Any], step: Callable[[Plan, Outcome], None]) -> Outcome:
        outcome = Outcome(source["id"], source.get("fine_tuned_model"), "planned")
        try:
            planned = plan(source, self._base, self._keep)
            outcome.differences = planned.differences
            step(planned, outcome)
        except NotImportedError as left:
            outcome.status = "left out"
            outcome.reason, outcome.next_action, outcome.line = left.reason, left.next_action, left.line
        return outcome

    def _look(self, planned: Plan, outcome: Outcome) -> None:
        here = self._here(planned.source["id"])
        if here is None:
            for name in ("training_file", "validation_file"):
                if planned.source.get(name):
                    known = self._files.look(planned.source[name])
                    setattr(outcome, name, f"{planned.source[name]} ({known.get('filename')}, {known.get('bytes')} B)")
            return
        _describe(outcome, here)
        if here["status"] == "succeeded" and not self._is_named(outcome):
            outcome.reason = "its old name is still to be set"

    def _bring(self, planned: Plan, outcome: Outcome) -> None:
        here, gone = self._find(planned.source["id"])
        if here is None:
            parent = self._parent(planned, outcome)
            if outcome.status == "waiting":
                return
            here = self._make(planned, parent, gone)
        _describe(outcome, here)
        if here["status"] == "succeeded":
            self._name(outcome)

    def _here(self, source_id: str) -> Job | None:
        """The job that was made of it, if there is one that need not be made again."""
        return self._find(source_id)[0]

    def _find(self, source_id: str) -> tuple[Job | None, int]:
        """That job, and how many others were made of it."""
        if source_id in self._made:
            return self._osora.jobs.get(self._made[source_id]), 0
        found = self._osora.jobs.list(metadata={ORIGIN: source_id})
        made = [job for job in found if job["model"] == self._base]
        here = next((job for job in made if job["status"] not in _GONE), None)
        return here, len(made) - (here is not None)

    def _parent(self, planned: Plan, outcome: Outcome) -> str | None:
        """The adapter here that the job goes on from, if it does; `outcome` waits where that is still being made."""
        if planned.continues is None:
            return None
        source = self._by_model.get(planned.continues)
        if source is None:
            raise NotImportedError(f"it goes on from {planned.continues}, which no job of this account made")
        here = self._here(source["id"])
        if here is None or here["status"] in _GONE:
            raise NotImportedError(
                f"it goes on from {planned.continues}, which is not here", f"import that as well: --job {source['id']}"
            )
        if here["status"] == "succeeded":
            return here["fine_tuned_model"]
        outcome.status = "waiting"
        outcome.reason = f"it goes on from {planned.continues}, which is {here['status']} here as {here['id']}"
        return None

    def _make(self, planned: Plan, parent: str | None, gone: int) -> Job:
        source = planned.source
        training = self._files.copy(source["training_file"])
        validation = self._files.copy(source["validation_file"]) if source.get("validation_file") else None
        body = planned.body | ({"osora": {"from_adapter": parent}} if parent else {})
        # The same for another import that runs now, whichever files it has copied: one of both makes the job.
        key = hashlib.sha256(f"{source['id']}\n{self._base}\n{gone}".encode()).hexdigest()
        try:
            made = self._osora.jobs.create(
                self._base, training, validation_file=validation, idempotency_key=f"import-{key}", **body
            )
        except OsoraAPIError as error:
            if error.code == "idempotency_key_reused":
                return self._made_by_another(source["id"])
            if error.status not in _REFUSED:
                raise
            raise NotImportedError(f"the job is refused here: {error.message}", error.next_action) from error
        self._made[source["id"]] = made["id"]
        self._tell(f"Job {source['id']} made again as {made['id']} on {self._base}")
        return made

    def _made_by_another(self, source_id: str) -> Job:
        here = self._here(source_id)
        if here is None:
            raise NotImportedError("another import is making it just now", "run this again")
        return here

    def _name(self, outcome: Outcome) -> None:
        """Lets the old name mean the new adapter, unless somebody has given it a meaning."""
        assert outcome.old_name is not None
        assert outcome.adapter is not None
        if self._is_named(outcome):
            return
        try:
            self._osora.aliases.set(outcome.old_name, outcome.adapter, expected_version=0)
        except OsoraAPIError as error:
            if error.status not in _REFUSED:
                raise
            outcome.alias = "refused"
            outcome.reason, outcome.next_action = f"its old name is refused here: {error.message}", error.next_action
            return
        outcome.alias = "set"
        self._tell(f"{outcome.old_name} now means {outcome.adapter}")

    def _is_named(self, outcome: Outcome) -> bool:
        """Whether the old name has a meaning here."""
        assert outcome.old_name is not None
        try:
            targets = self._osora.aliases.get(outcome.old_name)["targets"]
        except OsoraAPIError as error:
            if error.status != 404:
                raise
            return False
        outcome.alias = "set" if outcome.adapter in targets else "kept"
        if outcome.alias == "kept":
            outcome.reason = f"its old name means {', '.join(targets)} here, and stays so"
        return True


_GONE = ENDED - {"succeeded"}


def _describe(outcome: Outcome, here: Job) -> None:
    outcome.status, outcome.job, outcome.adapter = here["status"], here["id"], here.get("fine_tuned_model")
    outcome.training_file, outcome.validation_file = here["training_file"], here.get("validation_file")
    error = here.get("error")
    if error:
        outcome.reason, outcome.next_action = error["message"], error.get("next_action")
        outcome.line = error.get("line")
