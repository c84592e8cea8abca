"""`python -m console`."""

import os
import sys

from pydantic import ValidationError

from console.settings import ConsoleSettings


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = ConsoleSettings()
    except ValidationError as error:
        for wrong in error.errors():
            name = "OSORA_CONSOLE_" + "_".join(map(str, wrong["loc"])).upper()
            print(f"{name}: {wrong['msg'].removeprefix('Value error, ')}.", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    from console.server import Server

    server = Server(settings)
    server.run()
    sys.exit(0 if server.started else 1)


if __name__ == "__main__":
    main()
