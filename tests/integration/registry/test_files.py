"""Uploads: one pass, all or nothing."""

import gzip
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from registry import files
from registry.context import Registry
from registry.errors import InvalidFile, InvalidRequest, NotFound, OsoraError, TooLarge
from registry.settings import Settings
from registry.tenants import Principal
from tests.support.training_files import CONTAINERS, PACKERS

LINE = b'{"prompt": "a", "completion": "b"}\n'


class OncePieceByPiece(io.RawIOBase):
    """A stream that can neither seek nor be read whole."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        piece, self._data = self._data[:1000], self._data[1000:]
        return piece


def ingest(registry: Registry, principal: Principal, data: bytes, **other: Any) -> Any:
    arguments = {"filename": "träin.jsonl", "purpose": "fine-tune", **other}
    return files.ingest(registry, principal, OncePieceByPiece(data), **arguments)  # type: ignore[arg-type]


def test_a_good_file_is_stored(registry: Registry, principal: Principal) -> None:
    data = LINE * 500
    file = ingest(registry, principal, data)
    assert (file.filename, file.purpose, file.format, file.rows) == (
        "träin.jsonl",
        "fine-tune",
        "completion",
        500,
    )
    assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert file.created_at > 1_700_000_000
    assert registry.store.get(file.object_key) == data
    with registry.reading() as session:
        assert files.get(session, principal, file.id).object_key == file.object_key


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_is_stored_as_it_came_with_what_was_found_in_it(
    registry: Registry, principal: Principal, container: str, packer: str
) -> None:
    data = PACKERS[packer](CONTAINERS[container]([{"text": "Once upon a time", "id": "7"}] * 3))
    made = ingest(registry, principal, data)
    assert registry.store.get(made.object_key) == data
    assert (made.bytes, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    with registry.reading() as session:
        file = files.get(session, principal, made.id)
    assert (file.format, file.rows) == ("text", 3)
    noted = [1, 2, 3] if container == "parquet" else file.report["notes"][0]["lines"]
    assert file.report is not None
    assert file.report["container"] == container + packer
    assert file.report["notes"] == [{"message": "`id` is ignored", "count": 3, "lines": noted}]
    assert [warning["code"] for warning in file.report["warnings"]] == ["few_rows", "duplicate_rows"]


def test_a_refusal_has_all_problems(registry: Registry, principal: Principal) -> None:
    with pytest.raises(InvalidFile) as caught:
        ingest(registry, principal, (LINE + b'{"prompt": 1}\n') * 120)
    assert (caught.value.line, caught.value.field, caught.value.problem_count) == (2, "prompt", 120)
    assert [problem.line for problem in caught.value.problems] == list(range(2, 202, 2))
    assert "119 more problems" in caught.value.message


@pytest.mark.parametrize(
    ("data", "other", "kind"),
    [
        (LINE + b"{", {}, InvalidFile),
        (b"", {}, InvalidFile),
        (gzip.compress(LINE * 200_000), {}, InvalidFile),
        (LINE * 200_000, {}, TooLarge),
        (LINE, {"purpose": "assistants"}, InvalidRequest),
        (LINE, {"filename": "a\0b"}, InvalidRequest),  # fails at the row, after the object is there
    ],
    ids=["cut short", "empty", "unfolds", "too large", "another purpose", "a name that cannot be stored"],
)
def test_nothing_of_a_bad_file_is_stored(
    registry: Registry, principal: Principal, data: bytes, other: dict[str, str], kind: type[OsoraError]
) -> None:
    settings: Settings = registry.settings.model_copy(update={"max_upload_bytes": 1_000_000})
    limited = replace(registry, settings=settings)
    with pytest.raises(kind) as caught:
        ingest(limited, principal, data, **other)
    assert caught.value.next_action
    assert list(registry.store.list("")) == []
    with registry.reading() as session:
        assert files.list(session, principal).data == []


def test_a_file_whose_commit_was_not_heard_of_keeps_its_bytes(
    registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke when the database had committed already."""
    transaction = Registry.transaction

    @contextmanager
    def breaking(self: Registry) -> Iterator[Session]:
        with transaction(self) as session:
            yield session
        raise OperationalError("COMMIT", {}, ConnectionError("closed"))

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "transaction", breaking)
        with pytest.raises(OperationalError):
            ingest(registry, principal, LINE)
    with registry.reading() as session:
        (file,) = files.list(session, principal).data
    assert registry.store.get(file.object_key) == LINE


def test_files_page_and_filter(registry: Registry, principal: Principal) -> None:
    made = [ingest(registry, principal, LINE).id for _ in range(4)]
    with registry.reading() as session:
        page = files.list(session, principal, limit=3)
        assert ([file.id for file in page.data], page.has_more) == (made[:0:-1], True)
        rest = files.list(session, principal, after=page.data[-1].id)
        assert ([file.id for file in rest.data], rest.has_more) == (made[:1], False)
        assert files.list(session, principal, purpose="fine-tune-results").data == []
        assert len(files.list(session, principal, purpose="fine-tune", order="asc").data) == 4


def test_deleted_files_are_gone(registry: Registry, principal: Principal) -> None:
    file = ingest(registry, principal, LINE)
    files.delete(registry, principal, file.id)
    assert list(registry.store.list("")) == []
    with registry.reading() as session, pytest.raises(NotFound, match=file.id):
        files.get(session, principal, file.id)
    with pytest.raises(NotFound, match=file.id):
        files.delete(registry, principal, file.id)
