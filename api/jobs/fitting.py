"""Whether a job's rows fit its base, asked before the job is made: to be told hours later would be late."""

from fastapi.concurrency import run_in_threadpool

from api.files.measuring import measure_of
from api.services import Services
from osora_data.measures import Measure
from registry import files, references
from registry.added_bases import offered
from registry.context import Registry
from registry.errors import InvalidRequest, OsoraError
from registry.jobs import JobRequest, begun_with
from registry.models import File
from registry.tenants import Principal

_NAMED = 5


async def require_fitting_rows(services: Services, principal: Principal, request: JobRequest) -> None:
    """Raises `InvalidRequest` for rows that the base cannot be trained on: those over the limit, unless the job drops
    or truncates them, and those that its chat template refuses.

    What else is wrong with the request is said where the job is made. Where no inference server tells in time, the
    worker does.
    """
    try:
        base, found = await run_in_threadpool(_meant, services.registry, principal, request)
    except OsoraError:
        return
    for param, file in found.items():
        measure = await measure_of(services, file, base, limit=request.osora.get("max_length"))
        if measure is not None:
            check_fit(measure, file.id, base, param, request.osora.get("overlong", "refuse"))


def check_fit(measure: Measure, file_id: str, base: str, param: str, overlong: str) -> None:
    """Raises `InvalidRequest`, naming the first such rows, their count and what to do."""
    if measure.rows_refused:
        lines = _some([f"line {row['line']}: {row['problem']}" for row in measure.refused], measure.rows_refused, "; ")
        raise InvalidRequest(
            f"the base {base!r} cannot be trained on {_rows(measure.rows_refused)} of the file {file_id!r}: {lines}",
            param=param,
            code="invalid_training_data",
            next_action=measure.refused[0]["next_action"] or "correct or remove these rows, or choose another base",
        )
    if overlong == "refuse" and measure.rows_over:
        lengths = [f"line {row['line']} has {row['tokens']}" for row in measure.over]
        at_least = "" if measure.complete else "at least "
        are = "is" if measure.rows_over == 1 else "are"
        raise InvalidRequest(
            f"{at_least}{_rows(measure.rows_over)} of the file {file_id!r} {are} longer than {measure.limit} tokens: "
            + _some(lengths, measure.rows_over, ", "),
            param=param,
            code="rows_too_long",
            next_action='set osora.overlong to "truncate" or "drop", or shorten or split these rows',
        )


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _some(words: list[str], count: int, between: str) -> str:
    left = count - len(words[:_NAMED])
    return between.join(words[:_NAMED]) + (f" and {left} more" if left else "")


def _meant(registry: Registry, principal: Principal, request: JobRequest) -> tuple[str, dict[str, File]]:
    """The base of a job, and its files. Raises OsoraError for what there is not."""
    with registry.reading() as session:
        request = begun_with.without_aliases(session, principal, request, offered.paths(session, registry.settings))
        base = request.base or references.refer(session, principal, request.from_adapter or "").base
        named = {"training_file": request.training_file, "validation_file": request.validation_file}
        return base, {
            param: files.get(session, principal, file_id, param=param)
            for param, file_id in named.items()
            if file_id is not None
        }
