"""`python -m worker.follower`: one further device of a worker, which starts it and tells it what to do."""

import json
import signal
import sys
from pathlib import Path

from transformers.utils import logging as transformers_logging

from osora_core.basis import BasisCache
from osora_core.runtime import set_threads
from osora_core.training.distributed import follow
from worker.followers import Place


def main() -> None:
    """The command."""
    # They are meant for the worker, which still needs this process for what it has to finish.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = Place(**json.loads(sys.stdin.readline()))
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    set_threads()
    runtime = place.join(place.load(BasisCache(Path(place.cache))))
    follow(runtime, sys.stdin)


if __name__ == "__main__":
    main()
