"""`python -m inference`: loads the bases, serves until SIGTERM or SIGINT, then exits with 0."""

import logging
import sys
from typing import Any, cast

import uvicorn
from transformers.utils import logging as transformers_logging

from inference.app import create_app
from inference.authentication import require_token
from inference.engines import make_engines
from inference.settings import InferenceSettings
from inference.store import ArtifactStore
from osora_common.http_protocol import IDLE_SECONDS, Connections
from osora_common.http_server import ReadyServer, exit_on_signals, room_for_connections
from osora_common.log_records import leave_out_values
from osora_common.private_files import keep_private
from osora_common.refusal import refusing
from osora_core.basis import BasisCache
from osora_core.errors import UserError
from osora_core.out_of_memory import refusing_to_run_out
from osora_core.runtime import Runtime, set_threads

_GRACE_SECONDS = 3


class Server(ReadyServer):
    """A server that can end with an error."""

    failed = False

    def fail(self) -> None:
        """End the process with an error, so that whoever supervises it starts another."""
        self.failed = True
        self.should_exit = True


def main() -> None:
    """The command."""
    exit_on_signals()
    leave_out_values()
    with refusing(UserError):
        _serve(InferenceSettings())


def _serve(settings: InferenceSettings) -> None:
    keep_private(settings.data_dir)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    set_threads(1)
    require_token(settings)
    store = ArtifactStore(settings)
    cache = BasisCache(settings.data_dir / "cache", store)
    with refusing_to_run_out("the bases in OSORA_BASES and their engines"):
        runtimes = {
            name: Runtime.load(name, cache, path=path, device=settings.device, rank=settings.basis_rank)
            for name, path in settings.base_paths.items()
        }
        engines = make_engines(settings, runtimes, cache.directory)
    server: Server
    app = create_app(settings, engines, store, on_death=lambda: server.fail())
    config = uvicorn.Config(
        app,
        http=cast(Any, Connections(room_for_connections()).protocol()),
        ws="none",
        loop="asyncio",  # not whichever is installed, as uvicorn has it by default
        host=settings.inference_host,
        port=settings.inference_port,
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = Server(config)
    server.run()
    sys.exit(1 if server.failed or not server.started else 0)


if __name__ == "__main__":
    main()
