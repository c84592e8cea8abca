"""HTTP for strangers: uvicorn's protocol with bounds on what a connection may hold up, and for how long.

uvicorn waits for ever for the end of a request's head, for the rest of a body that nobody reads, and for a client to
read its answer. How long a body that is wanted may take is for `osora_common.bodies` to say, which can answer in the
shape of the door.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

logger = logging.getLogger(__name__)

HEAD_BYTES = 32 * 1024
"""Of a request's head, at most so many and what came before its last piece: h11 takes 16 KiB without an end, and any
number with one."""
HEAD_SECONDS = 15.0
"""For a request's head, from its first byte, or from the connection's beginning."""
IDLE_SECONDS = 15
"""A connection may wait so long for its next request."""
STALL_SECONDS = 60.0
"""For a client to read some of an answer that waits for it."""
DRAIN_SECONDS = 15.0
"""A body that nobody reads any more is thrown away for so long: a client that sends all of it before it reads would
find a closed connection reset, and the answer lost with it."""
DRAIN_RATE = 8 * 1024 * 1024
"""Bytes of such bodies that are thrown away a second, of all connections together: it costs time too."""
_CHEAPEST_PIECE = 4096
_PIECE_BYTES = 64 * 1024


@dataclass
class Connections:
    """The open connections of a server."""

    most: int
    most_of_address: int | None = None
    is_counted: Callable[[str], bool] = lambda address: True
    """Whether an address stands for one client: a proxy's does not."""

    of_address: Counter[str] = field(default_factory=Counter)
    waiting: dict["BoundedProtocol", None] = field(default_factory=dict)
    """Those without a request in progress, the longest waiting first."""
    draining: int = 0
    open: int = 0

    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """What uvicorn's `http` is to be."""
        return partial(BoundedProtocol, bounds=self)

    def admit(self, newcomer: "BoundedProtocol") -> bool:
        """Whether there is room for one more; it is made, if need be, by ending the one that has waited longest."""
        address = newcomer.address
        is_counted = self.most_of_address is not None and address is not None and self.is_counted(address)
        if is_counted and self.of_address[address or ""] >= (self.most_of_address or 0):
            return self._end_one(lambda other: other.address == address)
        return self.open < self.most or self._end_one(lambda other: True)

    def _end_one(self, may_end: Callable[["BoundedProtocol"], bool]) -> bool:
        found = next((other for other in self.waiting if may_end(other)), None)
        if found is None:
            return False
        found.abort()
        return True


class BoundedProtocol(H11Protocol):
    """One connection."""

    def __init__(self, *arguments: Any, bounds: Connections, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._bounds = bounds
        self._is_admitted = False
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._state = ""

    @property
    def address(self) -> str | None:
        """Of the other end, whoever it speaks for."""
        return self.client[0] if self.client else None

    def abort(self) -> None:
        """Ends the connection now, whatever is under way."""
        self._leave()
        self.transport.abort()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if hasattr(transport, "max_size"):
            # asyncio reads so much at once, and all of it may wait in memory for a key to be looked up: 256 KiB, it
            # thinks.
            transport.max_size = _PIECE_BYTES
        if not self._bounds.admit(self):
            logger.warning("a connection was refused: %d are open", self._bounds.open)
            transport.abort()
            return
        self._is_admitted = True
        self._bounds.open += 1
        self._bounds.of_address[self.address or ""] += 1
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_head_too_long(data):
            self._refuse(431, "head_too_large", f"the head of the request is over {HEAD_BYTES} bytes")
            return
        super().data_received(data)
        self._look(len(data))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self.abort)

    def resume_writing(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # What is still to be written to a client that does not read would keep it open.
        self._set_deadline(STALL_SECONDS, self.abort)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_http", "this is not HTTP that can be understood here")

    # --- where the connection stands ---

    def _is_head_too_long(self, data: bytes) -> bool:
        is_at_head = self.conn.their_state is h11.IDLE
        return is_at_head and len(data) > HEAD_BYTES and data.find(b"\r\n\r\n", 0, HEAD_BYTES) < 0

    def _look(self, received: int = 0) -> None:
        """Has the deadline be that of what the connection waits for now."""
        state = self._find_state()
        if state == "draining":
            self.cycle.body.clear()
            self._slow_down(received)
        if state == self._state:
            return
        self._bounds.draining += (state == "draining") - (self._state == "draining")
        self._state = state
        if state in ("idle", "head"):
            self._bounds.waiting.pop(self, None)
            self._bounds.waiting[self] = None
        else:
            self._bounds.waiting.pop(self, None)
        match state:
            case "idle":
                self._set_deadline(IDLE_SECONDS, self.timeout_keep_alive_handler)
            case "head":
                self._set_deadline(HEAD_SECONDS, self._end_head)
            case "draining":
                self._set_deadline(DRAIN_SECONDS, self.abort)
            case _:
                self._set_deadline(None, self.abort)

    def _find_state(self) -> str:
        if self.transport.is_closing():
            return "closing"
        if self.cycle is not None and not self.cycle.response_complete:
            return "answering"
        if self.conn.their_state is h11.SEND_BODY:
            return "draining"
        if self.cycle is not None and not self.conn.trailing_data[0]:
            return "idle"
        return "head"

    def _slow_down(self, received: int) -> None:
        if received and self._resume is None:
            self.flow.pause_reading()
            seconds = max(received, _CHEAPEST_PIECE) * max(1, self._bounds.draining) / DRAIN_RATE
            self._resume = self.loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self.flow.resume_reading()

    def _end_head(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(408, "request_timeout", "the head of the request took too long to arrive")
        else:
            self.transport.close()  # of a client that has said nothing, and expects nothing

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Ends the connection, with an answer where none has begun."""
        if not self.transport.is_closing() and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
            content = json.dumps({"error": error}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(content))),
                ("connection", "close"),
                ("x-content-type-options", "nosniff"),
            ]
            answer = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (answer, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what is still being carried out answers nobody
            self.cycle.message_event.set()
        self.transport.close()
        self._set_deadline(DRAIN_SECONDS, self.abort)

    def _set_deadline(self, seconds: float | None, end: Callable[[], None]) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, end)

    def _leave(self) -> None:
        """Gives up its place, once."""
        for timer in (self._deadline, self._stall, self._resume):
            if timer is not None:
                timer.cancel()
        self._deadline = self._stall = self._resume = None
        self._unset_keepalive_if_required()
        self._bounds.waiting.pop(self, None)
        if self._state == "draining":
            self._bounds.draining -= 1
        self._state = "closing"
        if self._is_admitted:
            self._is_admitted = False
            self._bounds.open -= 1
            self._bounds.of_address -= Counter([self.address or ""])
