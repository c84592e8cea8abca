"""What the fault suite shares: the nursery, a base, and the result of the job when nothing goes wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import migrate
from tests.faults.world import Nursery, Result, World, open_world
from tests.support import redis_server
from tests.support.redis_server import OwnServer
from tests.support.tiny_base import make_base


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes that are killed, started and waited for take long on a busy machine, and nothing here is measured."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture
def own_redis() -> Iterator[OwnServer]:
    with redis_server.own_server() as own:
        yield own


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, base: Path) -> Result:
    """What the job leaves when one worker runs it from beginning to end."""
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"), nursery, base)


def run_undisturbed(folder: Path, nursery: Nursery, base: Path, **osora: Any) -> Result:
    """What a job leaves in an installation of its own to which nothing happens."""
    url = f"sqlite:///{folder / 'osora.db'}"
    migrate.upgrade(url)
    with redis_server.own_server() as redis, open_world(folder, url, nursery, redis, base) as world:
        job_id = world.submit(**osora)
        world.start_worker()
        world.wait_for(job_id, "succeeded")
        return world.result(job_id)


@pytest.fixture
def world(
    tmp_path: Path,
    database_url: str,
    nursery: Nursery,
    own_redis: OwnServer,
    base: Path,
    undisturbed: Result,
) -> Iterator[World]:
    """An installation of the test's own, on SQLite and PostgreSQL in turn."""
    with open_world(tmp_path, database_url, nursery, own_redis, base) as world:
        yield world
