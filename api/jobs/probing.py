"""Waits for a probe: the first steps of a job that is not there yet."""

import asyncio
import time
from dataclasses import dataclass

import anyio
from fastapi.concurrency import run_in_threadpool

from api.jobs.schemas import ProbeOut
from api.services import Services
from registry import bases, workers
from registry.jobs import JobRequest, Plan, probes
from registry.jobs.probes import ProbeState
from registry.tenants import Principal

_LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Probed:
    """What a probe came to: its figures, what its worker decided, and in words why there is no more, if there is not.
    Each may be missing."""

    out: ProbeOut | None = None
    plan: Plan | None = None
    problem: str | None = None


async def probe(
    services: Services, principal: Principal, request: JobRequest, base: str, offers: bases.Offers, steps: int
) -> Probed:
    """Has a worker take the first steps of a job, and waits for at most `probes.SECONDS`; whoever is cancelled ends it.

    Raises Conflict while another probe of the tenant's goes on.
    """
    settings = services.settings

    def begin() -> str | None:
        with services.registry.transaction() as session:
            if not workers.live(session, base, settings.lease_seconds):
                return None
            return probes.start(session, principal, request, settings, offers, steps)

    probe_id = await run_in_threadpool(begin)
    if probe_id is None:
        return Probed(problem=f"There is no probe: no live worker serves {base}.")
    await run_in_threadpool(services.publisher.relay, services.registry)

    def stop() -> None:
        with services.registry.transaction() as session:
            probes.stop(session, probe_id)

    began = time.monotonic()
    try:
        state = await _ended(services, probe_id)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(stop)
    return _judged(state, steps, time.monotonic() - began)


async def _ended(services: Services, probe_id: str) -> ProbeState | None:
    """What it has come to when it is over or its time is."""

    def look() -> ProbeState | None:
        with services.registry.reading() as session:
            return probes.look(session, probe_id)

    until = time.monotonic() + probes.SECONDS
    while True:
        state = await run_in_threadpool(look)
        if state is None or state.is_over or time.monotonic() > until or services.stopping.is_set():
            return state
        await asyncio.sleep(_LOOK_SECONDS)


def _judged(state: ProbeState | None, steps: int, waited: float) -> Probed:
    if state is None:
        return Probed(problem="The probe was ended before it had begun.")
    out = None
    if state.told is not None:
        losses, seconds = state.told["train_loss"], state.told["seconds"]
        speed = round(state.told["tokens"] / seconds, 1) if seconds else 0.0
        out = ProbeOut(steps=len(losses), train_loss=losses, seconds=round(seconds, 3), tokens_per_second=speed)
    problem = None
    if state.error is not None and state.error["fault"] == "user":
        problem = f"The job would fail: {state.error['message']}."
        problem += f" Next: {state.error['next_action']}." if state.error["next_action"] else ""
    elif state.error is not None:
        problem = f"The probe failed: {state.error['message']}."
    elif state.status == "queued":
        problem = f"The probe did not get its turn within {waited:.0f} seconds."
    elif state.status != "succeeded":
        done = 0 if out is None else out.steps
        problem = f"The probe was ended after {waited:.0f} seconds, with {done} of {steps} steps done."
    return Probed(out, state.plan, problem)
