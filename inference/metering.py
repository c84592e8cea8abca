"""What generations have computed, whether they ended, failed or were left: one record of each for the spool.

A record holds numbers and names, never a word of what was asked or answered.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress

from inference.schemas import GenerateRequest
from inference.spool import Spool
from osora_core.inference import Output
from osora_core.inference.request import Computed

_SYNC_SECONDS = 1.0


class Account:
    """What the parts of one generation have computed. It is closed, and recorded, when the last of them has ended.

    prompts: of each part, the number of the prompt that it reads and how many tokens that has. Parts of the same prompt
    are charged for it once, as the answer's `usage` says.
    """

    def __init__(self, spool: Spool, body: GenerateRequest, prompts: Mapping[str, tuple[int, int]]) -> None:
        self._spool = spool
        self._body = body
        self._prompts = prompts
        self._open = set(prompts)
        self._read: dict[int, int] = {}
        self._written: dict[str, int] = {}

    def computed(self, part: str, output: Output) -> None:
        """A part has come so far: its prompt is read once there is a token."""
        if part in self._open:
            self._count(part, self._prompts[part][1] if output.completion_tokens else 0, output.completion_tokens)
            if output.finish_reason is not None:
                self._end(part)

    def left(self, part: str, computed: Computed | None) -> None:
        """A part was cancelled; None if it had not begun, or had ended."""
        if part in self._open:
            if computed is not None:
                self._count(part, computed.prompt_tokens, computed.completion_tokens)
            self._end(part)

    def _count(self, part: str, prompt_tokens: int, completion_tokens: int) -> None:
        place, _ = self._prompts[part]
        self._read[place] = max(self._read.get(place, 0), prompt_tokens)
        self._written[part] = completion_tokens

    def _end(self, part: str) -> None:
        self._open.remove(part)
        prompt_tokens, completion_tokens = sum(self._read.values()), sum(self._written.values())
        if self._open or not prompt_tokens:
            return
        body = self._body
        self._spool.append(
            {
                "id": body.request_id,
                "tenant": body.tenant,
                "key": body.key,
                "base": body.base,
                "adapter": body.adapter.id if body.adapter else "",
                "kind": body.kind,
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "ended_at": int(time.time()),
            }
        )


async def keep_synced(spool: Spool) -> None:
    """Have what is new reach the disk once a second, until cancelled: what a machine without power may lose."""
    while True:
        await asyncio.sleep(_SYNC_SECONDS)
        for descriptor in spool.unsynced():
            await asyncio.to_thread(_sync, descriptor)


def _sync(descriptor: int) -> None:
    try:
        with suppress(OSError):  # the next write says so
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
