"""The adapter that a job begins with, fetched and checked."""

from collections.abc import Callable

from osora_core.adapter import Adapter
from osora_core.basis import Basis
from osora_core.errors import IdentityMismatch, UserError
from registry.jobs import Attempt

PARAM = "osora.from_adapter"


def fetch_start(attempt: Attempt, basis: Basis, fetch: Callable[[str], bytes]) -> Adapter | None:
    """The adapter to begin with; None for the bare base.

    Raises UserError if it was made on another base or basis, or is gone, CorruptArtifact if its bytes are others.
    """
    if attempt.from_adapter_id is None:
        return None
    if attempt.start is None:
        raise UserError(
            f"{attempt.from_adapter_id} has been deleted, and the job begins with it",
            param=PARAM,
            next_action="submit the job again with another adapter, or without one",
        )
    adapter = Adapter.from_zip(fetch(attempt.start.object_key), attempt.start.sha256)
    try:
        adapter.check(basis)
    except IdentityMismatch as error:
        raise UserError(
            f"the job cannot begin with {attempt.from_adapter_id}: {error.message}",
            param=PARAM,
            next_action=error.next_action,
        ) from error
    return adapter
