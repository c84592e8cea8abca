"""What a client may ask of a job, and its way to the registry's `JobRequest`."""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonValue
from pydantic_core import PydanticCustomError

from api.schemas import AtMost, Metadata, Name, RequestModel, Suffix
from osora_common.hyperparameters import Overlong, scaled_rate
from registry.errors import InvalidRequest
from registry.jobs import JobRequest
from registry.models import JobPriority
from registry.settings import Settings


def _each_once(values: list[float]) -> list[float]:
    seen: set[float] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"lists {value:g} twice")
        seen.add(value)
    return values


Auto = Literal["auto"]
_Steps = Annotated[int, Field(ge=1, le=1_000_000)]
_Rate = Annotated[float, Field(gt=0)]
_Rates = Annotated[list[_Rate], Field(min_length=1), AtMost(1000), AfterValidator(_each_once)]

JOB_REQUEST_EXAMPLES: list[JsonValue] = [
    {
        "model": "osora-tiny",
        "training_file": "file-01k9v3t0w5qabcdefghjkmnpqrs",
        "suffix": "ticket-triage",
        "hyperparameters": {"n_epochs": 3},
    },
    {
        "model": "osora-tiny",
        "training_file": "file-01k9v3t0w5qabcdefghjkmnpqrs",
        "validation_file": "file-01k9v3t9m2wabcdefghjkmnpqrs",
        "suffix": "ticket-triage",
        "seed": 7,
        "metadata": {"team": "support", "dataset": "tickets-2026-10"},
        "method": {
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 5, "batch_size": 16}},
        },
        "osora": {"rank": 64, "learning_rate": 0.05, "max_length": 512, "evaluate": "epoch"},
    },
    {
        "model": "osora-tiny",
        "training_file": "file-01k9v3t0w5qabcdefghjkmnpqrs",
        "osora": {"learning_rate": [0.01, 0.03, 0.1], "sigma_rate": [1, 4]},
    },
]


class Hyperparameters(RequestModel):
    """OpenAI's three; "auto" leaves the choice to us."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Auto = "auto"


class Supervised(RequestModel):
    """The supervised method's part of a request."""

    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class DPOHyperparameters(Hyperparameters):
    """Those of direct preference optimization."""

    beta: Annotated[
        Annotated[float, Field(gt=0, le=2)] | Auto,
        Field(description="How much a gain over the reference counts; `auto` is 0.1."),
    ] = "auto"


class DPO(RequestModel):
    """The dpo method's part of a request."""

    hyperparameters: DPOHyperparameters = Field(default_factory=DPOHyperparameters)


class Method(RequestModel):
    """How to train: on answers, or (`dpo`) on preferences between two, compared with the base or with `from_adapter`.

    A file for `dpo` has rows `{"input": {"messages"}, "preferred_output", "non_preferred_output"}`.
    """

    type: Literal["supervised", "dpo"]
    supervised: Supervised | None = None
    dpo: DPO | None = None

    @model_validator(mode="after")
    def _no_other(self) -> Self:
        for name in ("supervised", "dpo"):
            if name != self.type and getattr(self, name) is not None:
                raise PydanticCustomError("other_method", f"`{name}` is given, and the type is {self.type!r}")
        return self

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Those that were chosen, or all left to us."""
        if self.type == "dpo":
            return self.dpo.hyperparameters if self.dpo else DPOHyperparameters()
        return self.supervised.hyperparameters if self.supervised else Hyperparameters()


class Knobs(RequestModel):
    """What OSoRA has and OpenAI's API has no name for. What is left out, the service chooses."""

    rank: Annotated[
        Annotated[int, Field(ge=1)] | Literal["full"] | None,
        Field(
            description="Rank of the adapter, at most the basis's and at most the largest full rank of the weights; "
            "`full` is that one. A weight of a smaller full rank uses what it has."
        ),
    ] = None
    learning_rate: Annotated[
        _Rate | _Rates | Literal["auto", "sweep"] | None,
        Field(
            description="The peak. Several values, or `sweep` for a grid of our own, train side by side (with those of "
            "`sigma_rate` at most 8, unless the operator sets another number); the best by validation loss, that of "
            "the method (without a validation file: by a tenth of the training rows, held back) becomes the adapter. "
            "`auto` sweeps where that takes at most 1.5 times as long, else it is the default."
        ),
    ] = None
    sigma_rate: Annotated[
        _Rate | _Rates | None,
        Field(description="How many times faster than o, the other vector, s learns; several values are a sweep."),
    ] = None
    target_modules: Annotated[list[Name], Field(min_length=1), AtMost(1000)] | Literal["all-linear"] | None = None
    train: Annotated[
        Literal["both", "s", "o"] | None,
        Field(description="Which vectors learn: s, o, or both."),
    ] = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    max_length: Annotated[
        int | None,
        Field(
            ge=2,
            le=2**20,
            description="Most tokens of a training row; it can only lower the base's own limit.",
        ),
    ] = None
    overlong: Annotated[
        Overlong | None,
        Field(
            description="What becomes of longer rows. `refuse`, the default: the job fails, and names them. "
            "`truncate`: their beginning is kept, and a row in which nothing to learn is left is dropped. `drop`: they "
            "are left out. Both are counted in the job's events."
        ),
    ] = None
    validation_share: Annotated[
        float | None,
        Field(
            gt=0,
            lt=0.5,
            description="Without a validation file: so large a part of the training rows is validated on instead of "
            "trained on, drawn by the job's seed; rows with one prompt stay together.",
        ),
    ] = None
    checkpoint_steps: Annotated[_Steps | None, Field(description="Steps between two checkpoints, at most.")] = None
    checkpoint_seconds: Annotated[float | None, Field(gt=0, description="Seconds between them, at most.")] = None
    evaluate: Annotated[
        Literal["epoch", "never"] | None, Field(description="When to measure on the validation file.")
    ] = None
    keep: Annotated[
        Literal["best", "last"] | None,
        Field(
            description="Which state becomes the adapter: of the epoch with the lowest validation loss, or the last "
            "one. Without it: the best where there is a validation file."
        ),
    ] = None
    early_stopping_patience: Annotated[
        int | None,
        Field(ge=1, le=50, description="Stop after so many epochs without a lower validation loss."),
    ] = None
    priority: Annotated[
        JobPriority | None,
        Field(
            description="Among your own jobs high is worth an hour of waiting, and low costs one. Where other tenants "
            "wait as well, a running job of high priority counts as half a job of yours, and one of low as two."
        ),
    ] = None
    from_adapter: Annotated[
        Name | None,
        Field(
            description="An adapter or a checkpoint to go on from, by id or name: its vectors, a fresh optimizer. The "
            "rank is its own."
        ),
    ] = None
    sample_prompts: Annotated[
        Annotated[list[Annotated[str, Field(min_length=1, max_length=2000)]], Field(min_length=1), AtMost(4)] | None,
        Field(
            description="Answered greedily before the first step and after every epoch, as events of the job. User "
            "turns, or for a file of prompts and completions text to be continued.",
        ),
    ] = None
    sample_tokens: Annotated[int | None, Field(ge=1, le=64, description="Tokens of such an answer, at most.")] = None


class CreateJob(RequestModel):
    """A fine-tuning job: OpenAI's fields, and our own under `osora`."""

    model_config = ConfigDict(json_schema_extra={"examples": JOB_REQUEST_EXAMPLES})
    unsupported: ClassVar = {"integrations": "a job's metrics are in its events and in its result file"}

    model: Annotated[
        Name,
        Field(description="Name of a base; GET /bases lists them. Or of what to go on from: `ft:…`, or an alias."),
    ]
    training_file: Annotated[Name, Field(description="Id of an uploaded file.")]
    validation_file: Name | None = None
    suffix: Suffix | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata: Metadata | None = None
    method: Method | None = None
    hyperparameters: Annotated[
        Hyperparameters | None, Field(description="The older place for `method.supervised.hyperparameters`.")
    ] = None
    osora: Knobs | None = None

    @model_validator(mode="after")
    def _hyperparameters_in_one_place(self) -> Self:
        if self.hyperparameters is not None and self.method is not None:
            raise PydanticCustomError(
                "two_places", "hyperparameters are given at the top level and a method too: choose one"
            )
        return self

    @model_validator(mode="after")
    def _one_learning_rate(self) -> Self:
        rate = self.osora.learning_rate if self.osora else None
        if rate not in (None, "auto") and self._chosen.learning_rate_multiplier != "auto":
            raise PydanticCustomError(
                "two_rates", "`osora.learning_rate` leaves nothing to `learning_rate_multiplier`: choose one"
            )
        return self

    @property
    def _chosen(self) -> Hyperparameters:
        return self.method.hyperparameters if self.method else self.hyperparameters or Hyperparameters()

    def _check_validated(self, knobs: dict[str, Any]) -> None:
        """Raises `InvalidRequest` for a knob that goes by an evaluation which there is not going to be."""
        if "sample_prompts" in knobs and knobs.get("evaluate") == "never":
            raise InvalidRequest(
                "`osora.sample_prompts` are answered at each evaluation, and `osora.evaluate` is never",
                param="osora.sample_prompts",
                code="invalid_value",
                next_action="leave out one of them",
            )
        if "sample_tokens" in knobs and "sample_prompts" not in knobs:
            raise InvalidRequest(
                "`osora.sample_tokens` is for `osora.sample_prompts`, and there are none",
                param="osora.sample_tokens",
                code="invalid_value",
                next_action="give prompts, or leave it out",
            )
        if self.validation_file is not None and "validation_share" in knobs:
            raise InvalidRequest(
                "`validation_file` and `osora.validation_share` both say what to validate on",
                param="osora.validation_share",
                code="invalid_value",
                next_action="leave out one of them",
            )
        is_validated = self.validation_file is not None or "validation_share" in knobs
        if is_validated and knobs.get("evaluate") != "never":
            return
        wanted = {"keep": knobs.get("keep") == "best", "early_stopping_patience": "early_stopping_patience" in knobs}
        for name in (name for name, is_wanted in wanted.items() if is_wanted):
            lacking = "`osora.evaluate` is never" if is_validated else "there is no `validation_file`"
            raise InvalidRequest(
                f"`osora.{name}` goes by the validation loss, and {lacking}",
                param=f"osora.{name}",
                code="invalid_value",
                next_action="name a validation file, or give `osora.validation_share`, and evaluate each epoch; or "
                f"leave out `osora.{name}`",
            )

    def to_job_request(self, settings: Settings) -> JobRequest:
        """The request as the registry takes it. Raises `InvalidRequest` for knobs that cannot be had together."""
        knobs: dict[str, Any] = self.osora.model_dump(exclude_none=True) if self.osora else {}
        self._check_validated(knobs)
        _check_sweep(knobs, settings.sweep_members)
        if scaled_rate(self._chosen.model_dump()) == 0:
            raise InvalidRequest(
                f"learning_rate_multiplier is {self._chosen.learning_rate_multiplier}, which makes the learning rate 0",
                param="hyperparameters.learning_rate_multiplier",
                code="invalid_value",
                next_action="choose a higher multiplier, 1 for the default rate",
            )
        begun_with = knobs.get("from_adapter")
        if self.model.startswith("ft:"):
            if begun_with not in (None, self.model):
                raise InvalidRequest(
                    f"`model` names {self.model!r} to begin with, and `osora.from_adapter` {begun_with!r}",
                    param="osora.from_adapter",
                    code="invalid_value",
                    next_action="leave out `osora.from_adapter`, or name a base as the model",
                )
            begun_with = self.model
        return JobRequest(
            base=None if self.model.startswith("ft:") else self.model,
            from_adapter=begun_with,
            training_file=self.training_file,
            validation_file=self.validation_file,
            suffix=self.suffix,
            seed=self.seed,
            metadata=self.metadata or {},
            method=self.method.type if self.method else "supervised",
            hyperparameters=self._chosen.model_dump(),
            osora=knobs,
        )


def _check_sweep(knobs: dict[str, Any], at_most: int) -> None:
    """Raises `InvalidRequest` for more rates than a worker trains side by side."""
    listed = {name: value for name in ("learning_rate", "sigma_rate") if isinstance(value := knobs.get(name), list)}
    members = math.prod(map(len, listed.values()))
    if members > at_most:
        raise InvalidRequest(
            f"{' and '.join(f'osora.{name}' for name in listed)} make a sweep of {members} members, and a worker here "
            f"trains at most {at_most} side by side",
            param=f"osora.{next(iter(listed))}",
            code="invalid_value",
            next_action="list fewer values",
        )
