"""The command line: `osora`."""

import importlib.metadata
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from osora.cli import adapters, aliases, bases, files, import_openai, jobs, keys, limits, tenants, webhooks
from osora.cli.audit import audit
from osora.cli.chat import chat
from osora.cli.compare import compare_answers
from osora.cli.console import console
from osora.cli.doctor import doctor
from osora.cli.failures import UsageError, report, report_usage
from osora.cli.generate import generate
from osora.cli.output import EXIT_CODES, LOOKALIKES, ExitCode, is_utf8, print_error
from osora.cli.serve import serve
from osora.cli.train import train
from osora.cli.usage import usage
from osora.errors import OsoraError


class _Group(TyperGroup):
    """Turns what goes wrong into one line and an exit code, for all commands."""

    def main(self, *given: Any, **extra: Any) -> Any:
        """As typer's, but wrong usage is told like everything else: as a sentence, or as JSON."""
        words = given[0] if given else extra.get("args")
        as_json = "--json" in (sys.argv if words is None else words)
        try:
            code = super().main(*given, **extra | {"prog_name": "osora", "standalone_mode": False})
        except UsageError as error:
            code = report_usage(error, as_json)
        except typer.Abort:
            print_error("Nothing was done", None, as_json, code="aborted")
            code = ExitCode.FAILED
        sys.exit(int(code) if isinstance(code, int) else ExitCode.OK)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OsoraError as error:
            raise typer.Exit(report(error, ctx.obj == "json")) from None
        except KeyboardInterrupt:
            print_error("Interrupted", None, ctx.obj == "json", code="interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # without it, the breaks of a docstring's lines stay in the help
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Osora: fine-tune small adapters of a base and call them a second later. Begin with `osora serve`.",
    epilog=EXIT_CODES,
)
app.command()(serve)
app.command()(console)
app.command()(doctor)
app.command()(train)
app.command()(chat)
app.command()(generate)
app.command("compare")(compare_answers)
app.command()(usage)
app.add_typer(jobs.app, name="jobs")
app.add_typer(adapters.app, name="adapters")
app.add_typer(aliases.app, name="aliases")
app.add_typer(files.app, name="files")
app.add_typer(bases.app, name="bases")
app.add_typer(keys.app, name="key")
app.add_typer(tenants.app, name="tenant")
keys.app.command("limits")(limits.of_key)
tenants.app.command("limits")(limits.of_tenant)
app.add_typer(webhooks.app, name="webhooks")
app.command()(audit)
app.add_typer(import_openai.app, name="import")


def _print_version(asked: bool) -> None:
    if not asked:
        return
    try:
        version = importlib.metadata.version("osora")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed: run from its source)"
    typer.echo(f"osora {version}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Options of `osora` itself."""


def main() -> None:
    """The command `osora`: whatever happens, a sentence and an exit code, and a traceback only with OSORA_DEBUG=1."""
    # Closed ones (`>&-`) are None.
    sys.stdout, sys.stderr = (stream or os.fdopen(_nowhere(), "w") for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets one like it, or a `?`, and not a crash.
        stream.reconfigure(errors="replace" if is_utf8(stream) else LOOKALIKES)  # type: ignore[union-attr]
    as_json = "--json" in sys.argv
    code: Any = ExitCode.FAILED
    try:
        try:
            app()
        except SystemExit as ended:
            code = ended.code
            if isinstance(ended.__context__, BrokenPipeError):  # typer and rich catch it, and exit with 1
                raise ended.__context__ from None
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our words has left, with all that was wanted: `| head`
        _mute()
        code = ExitCode.OK
    except KeyboardInterrupt:
        print_error("Interrupted", None, as_json, code="interrupted")
        code = ExitCode.INTERRUPTED
    except Exception as error:
        if os.environ.get("OSORA_DEBUG") == "1":
            raise
        if isinstance(error, OSError):  # it may be standard output's, which the interpreter would flush once more
            _mute()
        print_error(*_explain(error), as_json, code="internal_error")
    sys.exit(code)


def _mute() -> None:
    os.dup2(_nowhere(), sys.stdout.fileno())


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _explain(error: Exception) -> tuple[str, str]:
    """What happened and what to do, of an error that no command foresaw."""
    if isinstance(error, OSError) and error.strerror:
        place = os.fsdecode(error.filename) if error.filename else "The system"
        return f"{place}: {error.strerror}", "see whether that place exists and is yours to use"
    words = " ".join(str(error).split())
    what = type(error).__name__ + (f": {words}" if words else "")
    return f"The command line failed ({what})", "run it again with OSORA_DEBUG=1 and report what it prints"
