"""A walk over every operation of the app: without a key, with too small a scope, with another tenant's ids.

Nothing here names a route. A new one is found in the app, its scope in its dependencies, its requests in the examples
of the document. What can be owned and is not in `tests.support.estate` yet fails, so that foreign ids of it are tried.
"""

import json
import re
from dataclasses import replace
from itertools import count
from typing import get_args

import httpx
import pytest
from sqlalchemy import update

from api import docs
from api.app import create_app
from api.openai import refusals
from api.server import Server
from registry.context import Registry
from registry.models import Job
from registry.settings import Settings
from registry.tenants import Principal, Scope
from tests.integration.api.fake_inference import FakeInference
from tests.support.estate import Estate, build, unlike
from tests.support.operations import Operation, Place, operations
from tests.support.walk import Call, Rows, calls, free_places, rows, with_path, with_text

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SCOPES: tuple[Scope, ...] = get_args(Scope)
# Whoever may come without a key. A route that is added asks for a scope, or is named here by somebody who means it.
PUBLIC = {"/health", "/ready", "/openapi.json"}
PUBLIC_MODULES = {docs.__name__, refusals.__name__}
# An answer that differs from one to the next, whoever asks.
_VOLATILE = re.compile(r"\b(file-|upload_|part_|ftjob-|adp-|key-|cp_|webhook-|gen-)\w+|\b[12]\d{9}\b")


@pytest.fixture(autouse=True)
def _refusals_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute after the first, a row of the audit log would tell of them; walks may take longer."""
    monkeypatch.setattr("api.refusals.SECONDS", 3600)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # However fast it walks.
    without_rates = {"limit_requests_per_minute": None, "limit_tokens_per_minute": None}
    return settings.model_copy(update={"webhooks_allow_private": True, "max_upload_bytes": 2**31, **without_rates})


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return ",".join(inference)


@pytest.fixture
def every(server: Server) -> list[Operation]:
    return operations(server._app)


@pytest.fixture
def guarded(every: list[Operation]) -> list[Operation]:
    """Those that ask for a scope."""
    return [operation for operation in every if operation.scope is not None]


@pytest.fixture
def owner(registry: Registry) -> Estate:
    return build(registry, "owner")


@pytest.fixture
def stranger(registry: Registry) -> Estate:
    return build(registry, "stranger")


class Caller:
    """Sends calls with one key."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"} if key else {}, timeout=60)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def send(self, call: Call, method: str | None = None, **headers: str) -> httpx.Response:
        kind, content = call.content
        return self._http.request(
            method or call.operation.method,
            call.url,
            content=content,
            headers={"accept": call.accept, "content-type": kind, **headers},
        )


def with_head(operation: Operation) -> list[str]:
    return [operation.method, *(["HEAD"] if operation.method == "GET" else [])]


def test_every_operation_says_who_may(settings: Settings) -> None:
    app = create_app(settings)
    for operation in operations(app):
        is_public = operation.path in PUBLIC or getattr(operation.endpoint, "__module__", "") in PUBLIC_MODULES
        is_public = is_public or operation.path.startswith("/docs")
        if operation.scope is None and not operation.is_internal:
            assert is_public, f"{operation} asks for no scope, and nobody says that it is for everybody"
        else:
            assert operation.scope in (None, *SCOPES), operation
            assert not is_public, f"{operation} asks for a scope, and is said to be for everybody"


def test_nobody_comes_in_without_a_good_key(
    url: str, every: list[Operation], registry: Registry, owner: Estate, server: Server
) -> None:
    before = rows(registry)
    good = owner.key(registry, "admin")
    bad = ["", "osk-" + "x" * 43, good[:-1], good + "x", good.upper(), "\udcff", good[:-4] + "AAAA"]
    before = rows(registry)
    for key in bad:
        with Caller(url, key if key.isascii() else "x") as nobody:
            for operation in every:
                if operation.scope is None and not operation.is_internal:
                    continue
                call = calls(operation, owner)[0] if operation.document else Call(operation, {"key": "x"}, {})
                for method in with_head(operation):
                    response = nobody.send(call, method)
                    # 429: who guesses keys is slowed down.
                    refused = (401, 429) if key else (401,)
                    assert response.status_code in refused, f"{method} {call.url} with {key!r}: {response.status_code}"
                    assert owner.mark not in response.text
    with Caller(url, good) as somebody:
        for operation in every:
            if operation.is_internal:
                response = somebody.send(Call(operation, {"key": owner.object_keys[0]}, {}))
                assert response.status_code == 401, operation
    assert rows(registry) == before


def test_a_key_does_what_its_scopes_say(url: str, guarded: list[Operation], registry: Registry, owner: Estate) -> None:
    keys = {scope: owner.key(registry, scope) for scope in SCOPES}
    before = rows(registry)
    refused = 0
    for scope, key in keys.items():
        principal = Principal("", "", "", frozenset({scope}))
        with Caller(url, key) as caller:
            for operation in guarded:
                if principal.has(operation.scope):  # type: ignore[arg-type]
                    continue
                for call in calls(operation, owner):
                    for method in with_head(operation):
                        response = caller.send(call, method)
                        refused += 1
                        assert response.status_code == 403, f"{scope}: {method} {call.url}: {response.status_code}"
                        assert owner.mark not in response.text, f"{scope}: {call.url}"
    assert refused > len(guarded)
    assert rows(registry) == before


def test_the_walk_asks_for_what_is_there(url: str, guarded: list[Operation], registry: Registry) -> None:
    """With the owner's key the same requests are let in and find their objects: so what others are refused is real."""
    estates = (build(registry, f"owner-{number}") for number in count())
    estate = next(estates)
    for operation in guarded:
        tried = _refusals(url, operation, registry, estate)
        if tried:  # what was there until a request before deleted it, or ended it
            estate = next(estates)
            tried = _refusals(url, operation, registry, estate)
        assert not tried, tried[0]
        if operation.method == "DELETE":
            estate = next(estates)


def _refusals(url: str, operation: Operation, registry: Registry, estate: Estate) -> list[str]:
    found = []
    with Caller(url, estate.key(registry, operation.scope or "")) as caller:
        for call in calls(operation, estate):
            response = caller.send(call)
            if response.status_code >= 300 and response.status_code != 409 and not _is_no_refusal(response):
                found.append(f"{operation}: {call.url} {call.body!r:.300}: {response.status_code} {response.text}")
    return found


def _is_no_refusal(response: httpx.Response) -> bool:
    """Errors that only whoever has found the object is told, and of a hash that no basis here has."""
    told = {"base_not_deletable", "webhook_endpoint_unreachable", "basis_not_stored", "base_not_found"}
    return response.json()["error"].get("code") in told


def test_another_tenant_finds_nothing_and_changes_nothing(
    url: str, guarded: list[Operation], registry: Registry, owner: Estate, stranger: Estate
) -> None:
    """What is another tenant's is answered as what is nobody's, wherever an id or a name of it is put."""
    scopes = [scope for scope in SCOPES if scope != "operator"]
    guarded = [operation for operation in guarded if operation.scope in scopes]
    with Caller(url, stranger.key(registry, *scopes)) as caller:
        once = {operation.endpoint: operation for operation in reversed(guarded)}.values()
        # What it names after the owner's things comes last: later answers would show it its own.
        for part, todo in (
            (Walk.lists, guarded),
            (Walk.its_own_kind, guarded),
            (Walk.every_kind, once),
            (Walk.free_places, once),
        ):
            before = rows(registry)
            for operation in todo:
                part(Walk(registry, caller, owner, calls(operation, stranger)))
            _check_unchanged(before, rows(registry), owner)
    for object_key in owner.object_keys:
        assert registry.store.size(object_key), object_key


class Walk:
    """One operation, asked by a tenant for what is another's. `calls`: with ids of its own."""

    def __init__(self, registry: Registry, caller: Caller, owner: Estate, calls: list[Call]) -> None:
        self._registry, self._caller, self._owner, self._calls = registry, caller, owner, calls
        self._operation = calls[0].operation
        self._kinds = {kind: (id, unlike(id)) for kind, id in owner.ids.items()}

    def lists(self) -> None:
        """What has no id to ask for shows nothing of the owner's."""
        if self._operation.method == "GET" and not self._calls[0].path:
            for call in self._calls:
                response = self._caller.send(call)
                assert response.status_code == 200, call.url
                assert self._owner.mark not in response.text, call.url
                assert not [id for id in self._owner.ids.values() if id in response.text], call.url

    def its_own_kind(self) -> None:
        """What the path asks for, as the document's examples have it; for events and by HEAD too."""
        for theirs, nobodys in zip(
            calls(self._operation, self._owner),
            calls(self._operation, replace(self._owner, ids={kind: pair[1] for kind, pair in self._kinds.items()})),
            strict=True,
        ):
            foreign_names = [name for name, value in theirs.path.items() if value in self._owner.ids.values()]
            # Each by itself among what is the stranger's own, and all of them together.
            for names in [*([name] for name in foreign_names), foreign_names][: len(foreign_names) ** 2]:
                one, other = (
                    replace(
                        self._calls[0],
                        path={**self._calls[0].path, **{name: call.path[name] for name in names}},
                        accept=call.accept,
                    )
                    for call in (theirs, nobodys)
                )
                for method in with_head(self._operation):
                    status = self._compare(one, other, method=method)
                    assert status == 404, f"{method} {one.url}: {status}"

    def every_kind(self) -> None:
        """Whatever the owner has, in each place of the path."""
        for theirs, nobodys in self._kinds.values():
            for one, other in zip(with_path(self._calls[0], theirs), with_path(self._calls[0], nobodys), strict=True):
                self._compare(one, other)

    def free_places(self) -> None:
        """Whatever the owner has, in query, form and body. A place that refuses two ids for their form has no more to
        tell, and one that takes anything is asked for what is there only."""
        for place in free_places(self._operation):
            call = self._best(place)
            tried = [self._caller.send(with_text(call, place, self._kinds[kind][1])) for kind in ("file", "alias")]
            statuses = {response.status_code for response in tried}
            if statuses == {400}:
                continue
            for theirs, nobodys in self._kinds.values():
                if (place[0], theirs) == ("project_ids", self._owner.ids["tenant_id"]):
                    continue  # there another tenant is to be named, by an id that nobody guesses
                one, other = with_text(call, place, theirs), with_text(call, place, nobodys)
                self._compare(one, other, theirs, nobodys, takes_anything=statuses == {200})
            self._end_jobs()

    def _end_jobs(self) -> None:
        """Each of a long queue would make the next one's forecast take longer."""
        waiting = update(Job).where(Job.status == "queued", Job.tenant_id != self._owner.principal.tenant_id)
        with self._registry.transaction() as session:
            session.execute(waiting.values(status="cancelled"))

    def _best(self, place: Place) -> Call:
        """The example with which a text in that place gets furthest."""
        anything = self._kinds["adapter_name"][1]
        statuses = [self._caller.send(with_text(call, place, anything)).status_code for call in self._calls]
        return next((call for call, status in zip(self._calls, statuses, strict=True) if status != 400), self._calls[0])

    def _compare(
        self,
        one: Call,
        other: Call,
        theirs: str = "",
        nobodys: str = "",
        *,
        method: str | None = None,
        takes_anything: bool = False,
    ) -> int:
        said = _said(self._caller.send(one, method), [theirs, *one.path.values()])
        where = f"{method or one.operation.method} {one.url} {one.body!r:.400}: {said}"
        assert self._owner.mark not in said[1], where
        if takes_anything and said[0] == 200:
            return 200
        of_nothing = _said(self._caller.send(other, method), [nobodys, *other.path.values()])
        assert said[0] == of_nothing[0] < 500, f"{where}, not {of_nothing}"
        assert said[0] < 400 or said == of_nothing, f"{where}, not {of_nothing}"
        return said[0]


def _said(response: httpx.Response, sent: list[str]) -> tuple[int, str]:
    """Status and text, without what was sent (errors cut what is long) and what differs by itself."""
    is_json = response.headers.get("content-type") == "application/json" and response.content
    text = json.dumps(response.json(), ensure_ascii=False) if is_json else response.text
    for known in filter(None, sent):
        text = text.replace(known, "<sent>")
        for length in range(len(known) - 1, 16, -1):
            text = text.replace(known[:length] + "…", "<sent>")
    return response.status_code, _VOLATILE.sub("<its own>", text)


def _check_unchanged(before: dict[str, Rows], after: dict[str, Rows], owner: Estate) -> None:
    owned = set(owner.ids.values())
    for table, found in before.items():
        for key, row in found.items():
            if owned & {value for value in row.values() if isinstance(value, str)}:
                assert after[table].get(key) == row, f"{table} {key} is no longer {row}"
        new = [row for key, row in after[table].items() if key not in found]
        assert not [row for row in new if row.get("tenant_id") == owner.ids["tenant_id"]], f"new in {table}"
