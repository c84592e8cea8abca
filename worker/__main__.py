"""`python -m worker`: trains the configured bases' jobs until SIGTERM or SIGINT, then gives them back and exits."""

import logging
import os
import signal
import sys
from functools import partial
from typing import Any

from celery import signals
from transformers.utils import logging as transformers_logging

from osora_common.freed_memory import giving_back
from osora_common.log_records import leave_out_values
from osora_common.private_files import keep_private
from osora_common.refusal import refusing
from osora_core import out_of_memory
from osora_core.basis import BasisCache
from osora_core.errors import UserError
from osora_core.out_of_memory import refusing_to_run_out
from osora_core.runtime import Runtime, set_threads
from osora_core.training.distributed import SharedPasses
from osora_core.training.passes import MakePasses, Passes
from registry.context import Registry
from registry.outbox import train_queue
from registry.publisher import Publisher
from registry.settings import Settings, get_settings
from worker.app import add_tasks, create_app
from worker.bases import BaseKeeper
from worker.basis_store import StoredBasis
from worker.followers import FollowerProcesses, spread
from worker.node import Node
from worker.pool import Pool
from worker.queues import Queues

logger = logging.getLogger("worker")


def main() -> None:
    """The command."""
    leave_out_values()
    with refusing(UserError):
        _work(get_settings())


def _work(settings: Settings) -> None:
    keep_private(settings.data_dir)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    set_threads(1)
    with Registry.open(settings) as registry:
        cache = BasisCache(settings.data_dir / "cache", StoredBasis(registry.store))
        others: FollowerProcesses | None = None
        passes: MakePasses = Passes
        publisher = Publisher(settings.broker_url)
        # SIGTERM to ourselves is how Celery is told to stop from another thread.
        end = partial(os.kill, os.getpid(), signal.SIGTERM)
        with refusing_to_run_out("the bases in OSORA_BASES and their jobs", _next_action(settings)):
            if settings.worker_devices > 1:
                runtime, others = spread(settings, cache)
                runtimes = {runtime.name: runtime}
                passes = partial(SharedPasses, followers=others.followers)
            else:
                runtimes = {
                    name: Runtime.load(name, cache, path=path, device=settings.device, rank=settings.basis_rank)
                    for name, path in settings.base_paths.items()
                }
            node = Node(registry, runtimes, publisher, on_failure=end, passes=passes)
        app = create_app(settings)
        add_tasks(app, node)
        keeper: BaseKeeper | None = None

        @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
        def ready(**_: Any) -> None:
            print("ready", file=sys.stderr, flush=True)
            if keeper is not None:
                keeper.start()

        @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
        def drain(**_: Any) -> None:
            node.drain()

        logger.info("takes up to %d jobs at once", node.capacity.jobs)
        node.start()
        if others is not None:
            others.watch(node.fail)
        worker = app.Worker(
            pool=Pool.of(lambda: node.places.claimable),
            # Told after the bases are loaded: only then is it known what memory is left and what a pass keeps of it,
            # and a worker that listened before could not act on a message anyway.
            concurrency=node.places.most,
            queues=[train_queue(base) for base in runtimes],
            hostname=f"osora@{node.worker_id}",
            loglevel=settings.log_level.upper(),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        if others is None:  # those are for one base
            queues = Queues(worker)
            keeper = BaseKeeper(registry, node, cache, queues.listen, queues.ignore)
        with giving_back():
            worker.start()
        if keeper is not None:
            keeper.stop()
        ended = node.stop()
        if others is not None:
            others.stop()
        publisher.close()
    code = 1 if node.failed else worker.exitcode or 0
    if not ended:
        # A thread that still computes would be caught inside PyTorch by the interpreter's own end, which aborts.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _next_action(settings: Settings) -> str:
    """What to do where memory runs out before the first job."""
    if settings.worker_jobs == "auto":
        return out_of_memory.NEXT
    return f"lower OSORA_WORKER_JOBS, which is {settings.worker_jobs}, or {out_of_memory.NEXT}"


if __name__ == "__main__":
    main()
