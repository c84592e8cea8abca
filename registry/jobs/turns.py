"""Whose turn it is: the order in which the jobs that wait for a base are claimed.

1. A job that was interrupted, by a worker's stop or loss or another fault of ours: it had its turn already.
2. The tenant with the least running: each of its jobs of the base counts 1, one of high priority half, of low double.
3. Among those, the tenant that was served least recently; then whoever waits longest.
4. Of one tenant's jobs the oldest, where a high priority is worth an hour of age, and a low one costs an hour.

So nobody starves. A tenant's priorities move its jobs among its own, and decide how many of them run at a time when
others wait as well; a tenant of whom nothing runs goes before all that have something. A job of low priority is
overtaken by those of its tenant that come within an hour of it, or within two if they are of high priority.

Jobs of a tenant that is suspended have no turn.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from registry.db import now
from registry.models import Job, JobPriority, Tenant

_LOAD: dict[JobPriority, float] = {"high": 0.5, "normal": 1.0, "low": 2.0}
_AGE_SECONDS: dict[JobPriority, float] = {"high": 3600.0, "normal": 0.0, "low": -3600.0}
# Later than any time of a claim.
_FORESEEN = 1e12


def in_order(bases: Iterable[str]) -> Select[tuple[str, str, str, bool, float, float, float, float]]:
    """The queued jobs of these bases, the one to be claimed next first, with what decides.

    Columns: id, base, tenant, whether interrupted, the tenant's load and the time of its last claim, the load of the
    job itself, and when it would have been queued to be as old as its priority makes it. What comes after the first
    job is in order only as long as that is not claimed; see `positions`.
    """
    bases = set(bases)
    waiting, other = aliased(Job), aliased(Job)
    of_tenant = (other.tenant_id == waiting.tenant_id, other.base == waiting.base)
    load = select(func.coalesce(func.sum(_by_priority(other.priority, _LOAD)), 0.0)).where(
        *of_tenant, other.status == "running"
    )
    served = select(func.coalesce(func.max(other.claimed_at), 0.0)).where(*of_tenant)
    tenants = (
        select(
            waiting.tenant_id,
            waiting.base,
            load.scalar_subquery().label("load"),
            served.scalar_subquery().label("served"),
        )
        .join(Tenant, Tenant.id == waiting.tenant_id)
        .where(waiting.status == "queued", waiting.base.in_(bases), Tenant.suspended_at.is_(None))
        .group_by(waiting.tenant_id, waiting.base)
        .subquery()
    )
    since = Job.queued_at - _by_priority(Job.priority, _AGE_SECONDS)
    return (
        select(
            Job.id,
            Job.base,
            Job.tenant_id,
            Job.interrupted,
            tenants.c.load,
            tenants.c.served,
            _by_priority(Job.priority, _LOAD),
            since,
        )
        .join(tenants, (tenants.c.tenant_id == Job.tenant_id) & (tenants.c.base == Job.base))
        .where(Job.status == "queued", Job.base.in_(bases), or_(Job.probe_until.is_(None), Job.probe_until > now()))
        .order_by(Job.interrupted.desc(), tenants.c.load, tenants.c.served, since, Job.id)
    )


def positions(session: Session, bases: Iterable[str]) -> dict[str, int]:
    """How many jobs will be claimed before each that is queued for these bases, by job id, if none ends meanwhile."""
    lines: defaultdict[str, defaultdict[str, deque[Any]]] = defaultdict(lambda: defaultdict(deque))
    for row in session.execute(in_order(bases)):
        lines[row.base][row.tenant_id].append(row)
    return {job_id: position for line in lines.values() for position, job_id in enumerate(_claimed_in_turn(line))}


def _claimed_in_turn(line: dict[str, deque[Any]]) -> Iterable[str]:
    """Ids of one base's jobs in the order of their claims: each makes its tenant busier, and the latest served."""
    serial = count()

    def key(tenant: str, load: float, served: float) -> tuple[Any, ...]:
        job_id, _, _, interrupted, *_, since = line[tenant][0]
        return (not interrupted, load, served, since, job_id, tenant)

    heads = [key(tenant, jobs[0][4], jobs[0][5]) for tenant, jobs in line.items()]
    heapq.heapify(heads)
    while heads:
        _, load, _, _, job_id, tenant = heapq.heappop(heads)
        own_load = line[tenant].popleft()[6]
        yield job_id
        if line[tenant]:
            heapq.heappush(heads, key(tenant, load + own_load, _FORESEEN + next(serial)))


def _by_priority(
    priority: InstrumentedAttribute[JobPriority], values: dict[JobPriority, float]
) -> ColumnElement[float]:
    return case(values, value=priority, else_=values["normal"])
