"""`osora serve`."""

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osora.cli.output import ExitCode, Json, print_error, print_json_line, say
from osora.cli.server_parts import require_server
from osora.discovery import absolute
from osora.discovery import data_dir as default_data_dir

if TYPE_CHECKING:
    from osora.serve.supervisor import Notice


def serve(
    host: Annotated[str, typer.Option(envvar="OSORA_HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(envvar="OSORA_PORT", min=1, max=65535, help="Default: 8000 or the next free one."),
    ] = None,
    inference_port: Annotated[
        int | None,
        typer.Option(
            envvar="OSORA_INFERENCE_PORT",
            min=1,
            max=65535,
            help="The inference server's, which only the API uses. Default: 8100 or the next free one.",
        ),
    ] = None,
    console: Annotated[bool, typer.Option(help="Pages to look at, for a browser.")] = True,
    console_port: Annotated[
        int | None,
        typer.Option(
            envvar="OSORA_CONSOLE_PORT", min=1, max=65535, help="The console's. Default: 8010 or the next free one."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Default: OSORA_DATA_DIR, else ~/.osora.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C (exit code 0).

    A Valkey or Redis on a private socket, the API, one inference server, one worker and the console; SQLite and files
    in the data directory. Every other setting is an environment variable OSORA_*.
    """
    require_server()
    # Not at the top: a client has none of what they import.
    from osora.serve.broker import NoRedisError
    from osora.serve.ports import PortTakenError
    from osora.serve.run import AlreadyServedError
    from osora.serve.run import serve as run
    from osora.serve.supervisor import RefusedError, StartFailedError

    directory = absolute(data_dir or default_data_dir())

    def notify(notice: "Notice") -> None:
        try:
            if as_json:
                print_json_line({"event": notice.event, "message": notice.message.strip(), **notice.data})
            else:
                say(notice.message)
        except OSError:  # whoever read our words is gone: the service goes on, or stops, without them
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    try:
        run(directory, host, port, inference_port, notify, console=console, console_port=console_port)
    except AlreadyServedError as error:
        message = f"Another `osora serve` runs on {directory} ({error})"
        next_step = "use that one, stop it, or give this one a --data-dir of its own"
        _fail(message, next_step, as_json, "already_served")
    except PortTakenError as error:
        _fail(f"Port {error} is taken", "choose another, or leave it out", as_json, "port_taken")
    except NoRedisError:
        next_step = "install one (apt install redis-server; brew install redis), or set OSORA_BROKER_URL"
        _fail("No redis-server or valkey-server was found", next_step, as_json, "no_redis")
    except RefusedError as error:
        _fail(str(error), None, as_json, "refused")
    except StartFailedError as error:
        print(error.log_tail, file=sys.stderr)
        _fail(str(error), f"read the end of {error.log} above", as_json, "start_failed")
    except OSError as error:
        _fail(f"Cannot use {directory}: {error}", "give a --data-dir that you can write", as_json, "data_dir")


def _fail(message: str, next_step: str | None, as_json: bool, code: str) -> None:
    print_error(message, next_step, as_json, code=code)
    raise typer.Exit(ExitCode.FAILED)
