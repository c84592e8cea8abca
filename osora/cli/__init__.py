"""The command line: `osora`."""

from typing import Any

import typer
from typer.core import TyperGroup

from osora.cli import adapters, jobs, keys
from osora.cli.generate import generate
from osora.cli.output import EXIT_CODES, print_error, report
from osora.cli.serve import serve
from osora.cli.train import train
from osora.errors import OsoraError


class _Group(TyperGroup):
    """Turns the SDK's errors into one line and an exit code, for all commands."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OsoraError as error:
            raise typer.Exit(report(error, ctx.obj == "json")) from None
        except KeyboardInterrupt:
            print_error("Interrupted", None, ctx.obj == "json", code="interrupted")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Osora: fine-tune small adapters of a base and call them a second later. Begin with `osora serve`.",
    epilog=EXIT_CODES,
)
app.command()(serve)
app.command()(train)
app.add_typer(jobs.app, name="jobs")
app.add_typer(adapters.app, name="adapters")
app.command()(generate)
app.add_typer(keys.app, name="key")
