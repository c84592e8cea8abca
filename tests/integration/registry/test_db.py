"""Transactions: who waits for whom, and the database's clock."""

import time

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry import tenants
from registry.columns import UnstorableText
from registry.context import Registry
from registry.db import now, now_seconds, take_turns
from registry.models import File, Tenant


def test_the_clock_is_the_databases(registry: Registry) -> None:
    before = time.time()
    with registry.reading() as session:
        fine, whole = session.execute(select(now(), now_seconds())).one()
    assert before - 0.01 <= fine <= time.time() + 0.01
    assert isinstance(whole, int)
    assert 0 <= fine - whole < 1.1


def test_readers_do_not_wait_for_a_writer(registry: Registry) -> None:
    with registry.transaction() as writer:
        tenants.ensure_tenant(writer, "uncommitted")
        with registry.reading() as reader:  # would hang or fail if it asked for the write lock
            assert "uncommitted" not in reader.scalars(select(Tenant.name)).all()


def test_a_reading_session_cannot_write(registry: Registry) -> None:
    with pytest.raises(DBAPIError, match=r"readonly|read-only"), registry.reading() as session:
        tenants.ensure_tenant(session, "forbidden")
    with registry.transaction() as session:  # the connection goes back to the pool as good as new
        tenants.ensure_tenant(session, "allowed")


def test_an_exception_rolls_back(registry: Registry) -> None:
    def doomed() -> None:
        with registry.transaction() as session:
            tenants.ensure_tenant(session, "doomed")
            raise LookupError

    with pytest.raises(LookupError):
        doomed()
    with registry.reading() as session:
        assert session.scalars(select(Tenant.name)).all() == ["default"]


def test_turns_by_a_name_that_cannot_be_stored(registry: Registry) -> None:
    """It may be a client's; on SQLite, where nobody waits by name, the query after it says the same."""

    def ask(session: Session) -> None:
        take_turns(session, "a\0b")
        session.scalars(select(File.id).where(File.id == "a\0b")).all()

    with registry.transaction() as session, pytest.raises(UnstorableText):
        ask(session)
