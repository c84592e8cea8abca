"""Training files measured in a base's tokens, by a process beside this one: neither the interpreter nor a core of the
engine's own has to wait for a long file."""

import asyncio
import hashlib
import json
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from starlette.concurrency import run_in_threadpool

from inference.errors import ServerError
from inference.schemas import MeasureRequest
from osora_common.scratch import Scratch
from osora_core.errors import CorruptArtifact, UserError

_LONGEST_ANSWER = 64 * 1024 * 1024
_IDLE_SECONDS = 300.0
# It stops counting after a minute by itself, and takes some seconds to start.
_SECONDS = 180.0
_MOST_WAITING = 64
# Of its own. It has no business on a GPU.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Measurer:
    """Starts the process when there is something to measure, and ends it when there has been nothing for a while.

    Files are measured one at a time, and tenants in turns: whoever sends many waits behind itself.
    """

    def __init__(self, fetch: Callable[[str, Path], bool], sources: Mapping[str, str], scratch: Scratch) -> None:
        """`fetch`: see `ArtifactStore.fetch`; `sources`: where each base is loaded from;
        `scratch`: for temporary files."""
        self._fetch = fetch
        self._sources = sources
        self._scratch = scratch
        self._process: Process | None = None
        self._end: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._of_tenants: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting = 0

    async def measure(self, request: MeasureRequest, limit: int) -> dict[str, Any]:
        """The measure, as `dataclasses.asdict` gives it, of rows of at most `limit` tokens.

        Raises CorruptArtifact for bytes that are not what was stored, UserError for what the process refuses, and
        ServerError: 429 where too many wait, 503 where the file is not in the store or the process gives no answer.
        """
        if self._waiting >= _MOST_WAITING:
            raise ServerError(
                429, "rate_limit_error", "overloaded", f"{self._waiting} files wait to be measured",
                next_action="try again in a minute", retry_after=60,
            )  # fmt: skip
        self._waiting += 1
        try:
            async with self._of_tenants.setdefault(request.tenant, asyncio.Lock()), self._turn:
                with tempfile.TemporaryDirectory(prefix="measure-", dir=self._scratch.folder) as folder:
                    path = Path(folder) / "rows"
                    await run_in_threadpool(self._bring, request, path)
                    return await self._ask(request, path, limit)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    def _bring(self, request: MeasureRequest, path: Path) -> None:
        if not self._fetch(request.object_key, path):
            raise ServerError(
                503, "service_unavailable_error", "file_missing", f"the object store has no {request.object_key!r}",
                next_action="check that API and inference server name the same OSORA_OBJECT_STORE",
            )  # fmt: skip
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != request.sha256:
                raise CorruptArtifact(f"{request.object_key} is not what was uploaded: its hash has changed")

    async def _ask(self, request: MeasureRequest, path: Path, limit: int) -> dict[str, Any]:
        asked = {
            "base": self._sources[request.base],
            "path": str(path),
            "count": request.rows,
            "bytes": request.bytes,
            "limit": limit,
        }
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            line = await asyncio.wait_for(process.stdout.readline(), _SECONDS)
            answer: dict[str, Any] = json.loads(line)
        except (TimeoutError, ValueError, OSError) as error:
            await self.close()
            raise ServerError(
                503, "service_unavailable_error", "not_measured", "measuring the file took too long or broke off",
                next_action="the job itself tells of rows that are too long",
            ) from error  # fmt: skip
        except asyncio.CancelledError:
            # Its answer would be taken for that of the next question.
            await self.close()
            raise
        self._end = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._let_go)
        if "error" in answer:
            raise UserError(answer["error"]["message"], next_action=answer["error"]["next_action"])
        measure: dict[str, Any] = answer["measure"]
        return measure

    async def _running(self) -> Process:
        if self._end is not None:
            self._end.cancel()
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "osora_core.data.measure",
                stdin=PIPE, stdout=PIPE, limit=_LONGEST_ANSWER, env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,  # an interrupt at the terminal is for the server, with which it ends
            )  # fmt: skip
        return self._process

    def _let_go(self) -> None:
        """It ends when its input does."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
