"""`python -m api`: serves the API until SIGTERM or SIGINT, then exits with 0."""

import signal
import sys
from types import FrameType

from api.app import create_app
from api.server import Server
from registry.settings import get_settings


def main() -> None:
    """The command."""
    # uvicorn stops gracefully, then raises the signal again for whoever was there before: that is this.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    settings = get_settings()
    server = Server(create_app(settings), settings)
    server.run()
    if not server.started:
        sys.exit(3)  # uvicorn has said why


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
