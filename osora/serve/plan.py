"""The programs that `osora serve` runs, and how each is told apart from the others: by settings alone."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from osora.serve.broker import Broker
from osora.serve.probes import http_ok, logged
from osora.serve.service import Spec

LOGS = {
    "broker": "the broker's own words",
    "database": "migrations at the start",
    "inference": "bases and adapters as they are loaded, generations that failed",
    "worker": "jobs as they are claimed, trained and finished",
    "api": "one line for each request",
    "console": "what went wrong while pages were shown",
}

# Whoever waits for an answer waits now. Where both want the processor, training gets a quarter of it.
_TRAINING_STEPS_BACK = 5


@dataclass(frozen=True)
class Place:
    """Where one embedded installation lives."""

    data_dir: Path
    host: str
    port: int
    inference_port: int
    console_port: int | None = None
    """None: without a console."""

    @property
    def url(self) -> str:
        """How a client on this machine reaches the API."""
        return self._reached_at(self.port)

    @property
    def console_url(self) -> str | None:
        """How a browser on this machine reaches the console."""
        return None if self.console_port is None else self._reached_at(self.console_port)

    def _reached_at(self, port: int) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def inference_url(self) -> str:
        return f"http://127.0.0.1:{self.inference_port}"

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    def log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"


def module(*words: str) -> tuple[str, ...]:
    """The command line of one of our programs."""
    # -P: a folder named `api` or `worker` where the user happens to stand is not ours.
    return (sys.executable, "-P", "-m", *words)


def plan(place: Place, broker_url: str, broker: Broker | None) -> list[Spec]:
    """What to run, in the order of starting; stopping goes the other way round.

    `broker` is the Redis to start; None means that `broker_url` is somebody else's.
    """
    env = {
        **os.environ,
        "OSORA_DATA_DIR": str(place.data_dir),
        "OSORA_BROKER_URL": broker_url,
        "OSORA_HOST": place.host,
        "OSORA_PORT": str(place.port),
        "OSORA_INFERENCE_HOST": "127.0.0.1",
        "OSORA_INFERENCE_PORT": str(place.inference_port),
        "OSORA_INFERENCE_URLS": place.inference_url,
        "PYTHONUNBUFFERED": "1",
        # Worker and inference server share the cores. By default each keeps them spinning for milliseconds between
        # two operations, which slows the other, and whatever else runs here, several times over.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"),
    }

    queue = ("broker",) if broker else ()
    own_broker = (
        [Spec("broker", broker.command, place.log("broker"), broker.answers, env, stop_seconds=2)] if broker else []
    )
    return [
        *own_broker,
        Spec("database", module("registry", "init"), place.log("database"), None, env, stop_seconds=2),
        Spec(
            "inference",
            module("inference"),
            place.log("inference"),
            http_ok(f"{place.inference_url}/health"),
            env,
            stop_seconds=3,
        ),
        Spec(
            "worker",
            module("worker"),
            place.log("worker"),
            logged(place.log("worker"), "ready"),
            env,
            needs=("database", *queue),
            stop_seconds=20,  # it finishes a step, writes checkpoints and gives its jobs back
            niceness=_TRAINING_STEPS_BACK,
        ),
        Spec(
            "api",
            module("api"),
            place.log("api"),
            http_ok(f"{place.url}/ready"),
            env,
            needs=("database", *queue),
            stop_seconds=5,  # answers that are on their way
        ),
        *_console(place, env),
    ]


def _console(place: Place, env: dict[str, str]) -> list[Spec]:
    """Nobody but a person at a browser misses it, so that the others go on without it."""
    if place.console_url is None:
        return []
    own = {
        # A key of another installation would sign its holder in to this one.
        **{name: value for name, value in env.items() if name not in ("OSORA_API_KEY", "OSORA_URL")},
        "OSORA_CONSOLE_HOST": place.host,
        "OSORA_CONSOLE_PORT": str(place.console_port),
        "OSORA_CONSOLE_API_URL": place.url,
    }
    probe = http_ok(f"{place.console_url}/health")
    return [Spec("console", module("console"), place.log("console"), probe, own, stop_seconds=3, optional=True)]
