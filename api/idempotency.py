"""Requests that make something, and may be sent again: the second one gets the answer of the first.

A route takes part by asking for `OnceDep`, or `OnceFormDep` if it reads its body itself, and by returning what
`Once.keep` gives back, in the transaction that made the thing. See `registry.idempotency` for the rules.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Annotated, TypeVar

import anyio
from fastapi import Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.deps import PrincipalDep, ServicesDep
from api.services import Services
from registry import idempotency
from registry.errors import Conflict, Unavailable
from registry.idempotency import Claim, Sent
from registry.outages import DATABASE_OUTAGES

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=BaseModel)

_LOOK_SECONDS = 0.2
_RETRY_COUNT = "x-stainless-retry-count"


class Replay(Exception):
    """Ends a request whose answer is there already."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer


async def on_replay(request: Request, replay: Replay) -> Response:
    """The answer that the first request had."""
    return Response(replay.answer, media_type="application/json", headers={"idempotent-replayed": "true"})


class Once:
    """A request that is carried out once, however often it is sent."""

    def __init__(self, services: Services, request: Request, api_key_id: str, idempotency_key: str | None) -> None:
        self._services = services
        self._request = request
        self._api_key_id = api_key_id
        self._idempotency_key = idempotency_key
        self._mine: Claim | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._is_kept = False

    async def begin(self, body: bytes) -> None:
        """Returns when the request is to be carried out; `body` is a hash of its body.

        While another one carries it out, waits for that one.

        Raises:
            Replay: it was carried out before.
            Conflict: it was, and its answer is not kept; or its key came with another request before.
            Unavailable: the service stops, or the client has left, before the other one has ended.
        """
        retry = self._request.headers.get(_RETRY_COUNT, "")
        if self._idempotency_key is None and not retry.isdecimal():
            return  # a client that would not say so if it sent it again
        route = f"{self._request.method} {self._request.url.path}\n".encode()
        fingerprint = hashlib.sha256(route + body).hexdigest()
        sent = Sent(self._api_key_id, fingerprint, self._idempotency_key, int(retry[:3]) if retry.isdecimal() else 0)
        claim = await run_in_threadpool(self._claim, sent)
        while claim.state == "running":
            if self._services.stopping.is_set() or await self._request.is_disconnected():
                raise Unavailable("this request is still being carried out", next_action="send it again for its answer")
            await asyncio.sleep(_LOOK_SECONDS)
            # However many wait, they take none of the threads of those who do not.
            claim = await anyio.to_thread.run_sync(
                self._look, sent, claim.id, limiter=self._services.threads_for_waiting
            )
        if claim.state == "done":
            raise _answered(claim)
        self._mine = claim
        self._renewing = asyncio.create_task(self._renew(claim))

    def keep(self, session: Session, answer: Answer, *, has_secret: bool = False) -> Answer:
        """The answer itself, written down for those who send the request again.

        Call it in the transaction that makes the thing. With `has_secret` it is not written; who sends the request
        again is told so.
        """
        if self._mine is not None:
            idempotency.keep(session, self._mine, None if has_secret else answer.model_dump_json(by_alias=True))
            self._is_kept = True
        return answer

    async def end(self, *, has_failed: bool) -> None:
        """Lets others carry it out, if this one failed."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        if self._mine is None or (self._is_kept and not has_failed):
            return
        try:
            await run_in_threadpool(self._release, self._mine)
        except DATABASE_OUTAGES:
            logger.warning("a request that failed is not forgotten before its lease ends: the database does not answer")

    def _claim(self, sent: Sent, known: int | None = None) -> Claim:
        with self._services.registry.transaction() as session:
            return idempotency.claim(session, sent, known)

    def _look(self, sent: Sent, known: int) -> Claim:
        with self._services.registry.reading() as session:
            found = idempotency.look(session, known)
        return found if found is not None and found.state in ("running", "done") else self._claim(sent, known)

    def _release(self, mine: Claim) -> None:
        with self._services.registry.transaction() as session:
            idempotency.release(session, mine)

    async def _renew(self, mine: Claim) -> None:
        def renew() -> None:
            with self._services.registry.transaction() as session:
                idempotency.renew(session, mine)

        while True:
            await asyncio.sleep(idempotency.LEASE_SECONDS / 5)
            with contextlib.suppress(*DATABASE_OUTAGES):
                await run_in_threadpool(renew)


def _answered(claim: Claim) -> Exception:
    if claim.answer is not None:
        return Replay(claim.answer)
    return Conflict(
        "this request was carried out before, and its answer is not kept: it held a secret, or told of what is gone",
        code="answer_not_kept",
        next_action="delete what it made, if that is there, and send it with another Idempotency-Key",
    )


async def _get_once(
    request: Request,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x20-\x7e]*$",
            description="The same request with the same key within a day gets the first one's answer.",
        ),
    ] = None,
) -> AsyncIterator[Once]:
    once = Once(services, request, principal.key_id, idempotency_key)
    try:
        yield once
    except BaseException:
        await once.end(has_failed=True)
        raise
    await once.end(has_failed=False)


# Of the request, not of the function: it ends after a session, which may hold a lock on what it would delete.
OnceFormDep = Annotated[Once, Depends(_get_once, scope="request")]


async def begun(request: Request, once: OnceFormDep) -> Once:
    """The same, of a JSON body: see `Once.begin`."""
    await once.begin(hashlib.sha256(await request.body()).digest())
    return once


OnceDep = Annotated[Once, Depends(begun)]
