"""A worker that is stopped past its lease, and goes on when its job has long been another's."""

import signal

import pytest
from sqlalchemy import select

from registry import jobs
from registry.models import Base
from tests.faults.strikes import Orders, Strike
from tests.faults.world import Result, World, eventually


@pytest.mark.parametrize(("point", "nth"), [("stepped", 12), ("checkpoint_uploading", 3), ("adapter_uploading", 1)])
def test_a_zombie_changes_nothing(world: World, undisturbed: Result, point: str, nth: int) -> None:
    job_id = world.submit()
    zombie = world.start_worker(Orders(Strike(point, "stop", nth)))
    zombie.wait_until_stopped()
    heir = world.start_worker()
    world.assert_undisturbed(job_id, undisturbed)
    heir.send(signal.SIGTERM)
    assert heir.wait() == 0
    rows, named = snapshot(world), named_objects(world, job_id)
    zombie.send(signal.SIGCONT)
    eventually(lambda: "lets go" in zombie.log, "the zombie to notice")
    zombie.send(signal.SIGTERM)
    assert zombie.wait() == 0
    assert snapshot(world) == rows
    assert named_objects(world, job_id) == named
    world.assert_undisturbed(job_id, undisturbed)


def snapshot(world: World) -> dict[str, list[tuple[str, ...]]]:
    """Every row of every table but those of the workers themselves, who come and go."""
    with world.registry.engine.connect() as connection:
        return {
            name: sorted(tuple(map(repr, row)) for row in connection.execute(select(table)))
            for name, table in Base.metadata.tables.items()
            if name != "workers"
        }


def named_objects(world: World, job_id: str) -> dict[str, bytes]:
    """What rows point to. A zombie's own upload is nobody's, until the sweep takes it."""
    result = world.result(job_id)
    with world.registry.reading() as session:
        kept = jobs.checkpoints(session, world.principal, job_id).data
    return {
        "adapter": result.adapter,
        "curve": result.curve,
        **{
            key: world.registry.store.get(key)
            for row in kept
            for key in (row.object_key, row.adapter_key)
            if key is not None
        },
    }
