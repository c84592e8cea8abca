"""Transactions: who waits for whom, and the database's clock."""

import math
import time

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry import db, tenants
from registry.columns import UnstorableText
from registry.context import Registry
from registry.db import now, now_seconds, take_turns
from registry.models import File, Tenant
from registry.outages import DATABASE_OUTAGES
from registry.settings import Settings


def test_the_clock_is_the_databases(registry: Registry) -> None:
    before = time.time() - 0.01
    with registry.reading() as session:
        fine, whole = session.execute(select(now(), now_seconds())).one()
    after = time.time() + 0.01
    assert before <= fine <= after
    assert isinstance(whole, int)
    assert math.floor(before) <= whole <= after


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


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_whoever_is_stopped_in_a_transaction_keeps_nobody_waiting_for_ever(
    registry: Registry, settings: Settings
) -> None:
    engine = db.make_engine(settings.database_url)
    by_name = select(Tenant).where(Tenant.name == "default").with_for_update()
    with Session(engine) as stopped:
        stopped.scalars(by_name).one()
        # The last that it says: a shorter limit from the start would end it while it is busy on a busy machine.
        stopped.execute(text("SET idle_in_transaction_session_timeout = 200"))
        with registry.transaction() as other:  # waits until the other's lock is gone
            assert other.scalars(by_name).one().name == "default"
        with pytest.raises(DATABASE_OUTAGES) as ended:
            stopped.commit()
    assert isinstance(ended.value.orig, psycopg.errors.IdleInTransactionSessionTimeout)
    with Session(engine) as session, session.begin():  # the pool has noticed
        assert session.scalars(by_name).one().name == "default"
    engine.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_every_connection_has_that_limit(registry: Registry) -> None:
    with registry.reading() as session:
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "30s"
