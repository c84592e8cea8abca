"""One conformance suite for every object store."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from registry import blobs
from registry.context import Registry
from registry.db import make_engine
from registry.errors import InvalidRequest, NotFound
from registry.store import ObjectStore, ObstoreStore, open_store
from tests.support.threads import in_parallel

BIG = bytes(range(256)) * 10_000  # two and a half pieces


@pytest.fixture(params=["file", "memory", "db-sqlite", "db-postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store of each kind."""
    kind = request.param
    urls = {"file": f"file://{tmp_path / 'a store'}", "memory": "memory://"}
    # Only the `db:` kinds need a database; the others get an engine that is never connected.
    database_url = f"sqlite:///{tmp_path / 'unused.db'}"
    if kind.startswith("db-"):
        database_url = request.getfixturevalue(f"{kind.removeprefix('db-')}_database_url")
    engine = make_engine(database_url)
    yield open_store(urls.get(kind, "db:"), {}, engine)
    engine.dispose()


@pytest.mark.parametrize("data", [b"", b"x", BIG])
def test_what_goes_in_comes_out(store: ObjectStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "source"
    path.write_bytes(data)
    store.put("a/bytes", data)
    store.put("a/path", path)
    for key in ("a/bytes", "a/path"):
        assert store.get(key) == data
        assert b"".join(store.stream(key)) == data
        assert store.size(key) == len(data)


def test_big_objects_stream_in_pieces(store: ObjectStore) -> None:
    store.put("big", BIG)
    pieces = list(store.stream("big"))
    assert all(isinstance(piece, bytes) for piece in pieces)
    assert max(map(len, pieces)) <= len(BIG)
    assert b"".join(pieces) == BIG


@pytest.mark.parametrize("start", [1, 1024 * 1024 - 1, 1024 * 1024, 2 * 1024 * 1024 + 5])
def test_a_stream_begins_where_it_is_told_to(store: ObjectStore, start: int) -> None:
    data = bytes(range(256)) * 10_000
    store.put("big", data)
    assert b"".join(store.stream("big", start)) == data[start:]


def test_a_stream_may_be_left_early(store: ObjectStore) -> None:
    store.put("big", BIG)
    assert next(store.stream("big"))
    store.put("big", b"new")
    assert store.get("big") == b"new"


def test_put_replaces(store: ObjectStore) -> None:
    store.put("key", BIG)
    store.put("key", b"short")
    assert store.get("key") == b"short"


def test_a_stream_never_mixes_two_objects(store: ObjectStore) -> None:
    old, new = b"o" * 9_000_000, b"n" * 9_000_000
    store.put("key", old)
    stream = store.stream("key")
    first = next(stream)
    store.put("key", new)
    assert first + b"".join(stream) == old


def test_readers_see_whole_objects_only(store: ObjectStore) -> None:
    store.put("key", b"0" * 1_500_000)

    def work(index: int) -> None:
        for _ in range(3):
            store.put("key", str(index).encode() * 1_500_000)
            found = store.get("key")
            assert len(found) == 1_500_000
            assert len(set(found)) == 1

    in_parallel(4, work)


def test_put_if_absent_is_won_once(store: ObjectStore, tmp_path: Path) -> None:
    won: list[int] = []

    def work(index: int) -> None:
        if store.put_if_absent("once", str(index).encode() * 2_000_000):
            won.append(index)

    in_parallel(8, work)
    assert len(won) == 1
    assert store.get("once") == str(won[0]).encode() * 2_000_000
    path = tmp_path / "source"
    path.write_bytes(b"late")
    assert not store.put_if_absent("once", path)
    assert store.put_if_absent("another", path)
    assert store.get("another") == b"late"


def test_missing_objects(store: ObjectStore) -> None:
    assert store.size("nothing/here") is None
    store.delete("nothing/here")
    with pytest.raises(NotFound, match="nothing/here"):
        store.get("nothing/here")
    with pytest.raises(NotFound, match="nothing/here"):
        store.stream("nothing/here")  # at the call: a response must not begin


def test_delete(store: ObjectStore) -> None:
    store.put("a", BIG)
    store.delete("a")
    assert store.size("a") is None
    assert store.put_if_absent("a", b"again")


def test_list_is_by_folder(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_PAGE_OBJECTS", 2)
    for key in ("jobs/1/b", "jobs/1/a", "jobs/10/a", "jobs%1/a", "jobs_1/a", "other"):
        store.put(key, BIG if key == "jobs/1/a" else b"x")
    assert {found.key: found.bytes for found in store.list("jobs/1")} == {"jobs/1/a": len(BIG), "jobs/1/b": 1}
    assert [found.key for found in store.list("jobs_1")] == ["jobs_1/a"]
    assert list(store.list("none")) == []
    assert len(list(store.list(""))) == 6


def test_list_knows_when_an_object_was_put_there(store: ObjectStore) -> None:
    before = time.time()
    store.put("key", b"x")
    (found,) = store.list("")
    assert before - 1.1 <= found.modified_at <= time.time() + 0.1


def test_what_a_listing_has_not_come_to_yet_may_go(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_PAGE_OBJECTS", 2)
    keys = {f"jobs/{number}/a" for number in range(7)}
    for key in keys:
        store.put(key, b"x")
    seen = set()
    for found in store.list("jobs"):
        seen.add(found.key)
        store.delete(found.key)
        store.delete("jobs/6/a")
    assert keys - seen <= {"jobs/6/a"}
    assert list(store.list("")) == []


# A process of its own, which is dead when the test looks: what flushes in the background would touch the files again.
CUT_SHORT = """
import os, signal, sys
from pathlib import Path
from obstore import open_writer
from obstore.store import from_url

url, folder = sys.argv[1:]
writers = [open_writer(from_url(url), f"jobs/{name}", buffer_size=1) for name in ("old", "young")]
for name, writer in zip(("old", "young"), writers):
    writer.write(b"half of it")
    writer.flush()
    while not any(path.stat().st_size for path in Path(folder).glob(f"jobs/{name}*")):
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_left_of_a_put_that_was_cut_short_can_be_cleared(store: ObjectStore, tmp_path: Path) -> None:
    for key in ("whole", "jobs/whole"):
        store.put(key, b"x")
    assert store.clear_unfinished(time.time() + 60) == 0
    if isinstance(store, ObstoreStore) and store.url.startswith("file:"):
        folder = tmp_path / "a store"
        killed = subprocess.run([sys.executable, "-c", CUT_SHORT, store.url, str(folder)], timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL
        old = next(folder.glob("jobs/old*"))
        os.utime(old, (0, 0))
        assert store.clear_unfinished(time.time() - 60) == 1
        assert not old.exists()
        assert len(list(folder.glob("jobs/young*"))) == 1
    assert {found.key for found in store.list("")} == {"whole", "jobs/whole"}


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".", "a\0b", "a\nb", "a\\b", "a#1"]
)
def test_keys_that_are_none(store: ObjectStore, key: str) -> None:
    for use in (store.get, store.stream, store.size, store.delete, lambda k: store.put(k, b"")):
        with pytest.raises(InvalidRequest, match="is not an object key"):
            use(key)


@pytest.mark.parametrize("key", ["with space", "pct%20", "ünï", "a:b", "q?x=1"])
def test_unusual_keys(store: ObjectStore, key: str) -> None:
    store.put(key, b"x")
    assert store.get(key) == b"x"
    assert [found.key for found in store.list("")] == [key]


def test_cloud_stores_open_without_a_connection(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'unused.db'}")
    options = {"endpoint": "http://localhost:9000", "access_key_id": "a", "secret_access_key": "s3cret"}
    secret = {name: SecretStr(value) for name, value in options.items()}
    store = open_store("s3://bucket/prefix", secret, engine)
    assert store.url == "s3://bucket/prefix"
    engine.dispose()


def test_a_registry_keeps_its_objects_where_it_is_told(registry: Registry) -> None:
    registry.store.put("a/b", b"x")
    assert (registry.settings.data_dir / "objects" / "a" / "b").read_bytes() == b"x"
