"""What is kept of files in the tokens of bases."""

import threading

from sqlalchemy import func, select

from osora_data.measures import Kept, Measure
from registry import measures
from registry.context import Registry
from registry.measures import MOST_LIMITS, FileMeasure
from registry.tenants import Principal
from tests.support.jobs import upload

NOTHING = Kept(1, 1, 1)
MEASURE = Measure(9, 1, 1, True, 0, [], 0, [], 1, 1, NOTHING, NOTHING, [])


def test_two_processes_keep_the_measure_of_one_file(registry: Registry, principal: Principal) -> None:
    file = upload(registry, principal)
    raised: list[Exception] = []

    def keep() -> None:
        try:
            with registry.transaction() as session:
                measures.keep(session, file.id, "base", None, MEASURE, base_fingerprint="f")
        except Exception as error:
            raised.append(error)

    other = threading.Thread(target=keep)
    with registry.transaction() as session:
        measures.keep(session, file.id, "base", None, MEASURE, base_fingerprint="f")
        session.flush()
        other.start()
        other.join(0.5)
    other.join()
    assert raised == []
    with registry.reading() as session:
        assert measures.find(session, file.id, "base") == MEASURE


def test_limits_without_end_leave_no_measures_without_end(registry: Registry, principal: Principal) -> None:
    file = upload(registry, principal)
    for limit in (None, *range(2, 3 * MOST_LIMITS)):
        with registry.transaction() as session:
            measures.keep(session, file.id, "base", limit, MEASURE, base_fingerprint="f")
    with registry.reading() as session:
        assert session.scalars(select(func.count()).select_from(FileMeasure)).one() <= MOST_LIMITS + 1
        assert measures.find(session, file.id, "base") == MEASURE
        assert measures.find(session, file.id, "base", 3 * MOST_LIMITS - 1) == MEASURE
