"""`python -m api`: serves the API until SIGTERM or SIGINT, then exits with 0."""

import sys

from api.app import create_app
from api.server import Server
from osora_common.http_server import exit_on_signals
from osora_common.log_records import leave_out_values
from osora_common.private_files import keep_private
from osora_common.refusal import refusing
from registry.settings import get_settings

_SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter from the one that answers: ten times less than by default."""


def main() -> None:
    """The command."""
    exit_on_signals()
    leave_out_values()
    with refusing():
        settings = get_settings()
        keep_private(settings.data_dir)
    sys.setswitchinterval(_SWITCH_SECONDS)
    server = Server(create_app(settings), settings)
    server.run()
    if not server.started:
        sys.exit(3)  # uvicorn has said why


if __name__ == "__main__":
    main()
