"""What a person reads and a program gets when a command fails."""

from typing import Any

import typer

from osora.cli.flags import in_flags
from osora.cli.names import suggestion
from osora.cli.output import ExitCode, print_error, print_note, sentences
from osora.errors import OpenAIError, OsoraAPIError, OsoraConnectionError, OsoraError, OsoraUsageError

_BY_STATUS = {401: ExitCode.UNAUTHORISED, 403: ExitCode.UNAUTHORISED, 404: ExitCode.NOT_FOUND}
# How the service speaks of what lists its things, and the command that does.
_COMMANDS = {
    "adapter_not_found": "osora adapters",
    "alias_not_found": "osora aliases",
    "base_not_found": "osora bases",
    "file_not_found": "osora files",
    "job_not_found": "osora jobs",
    "webhook_endpoint_not_found": "osora webhooks",
}
_OF_A_FILE = "invalid_file"
"""What is said of a training file speaks of the keys of its rows, and not of flags."""
_MOST_PROBLEMS = 20
# Typer shows its own class for wrong usage under no name of its own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def report(error: OsoraError, as_json: bool) -> ExitCode:
    """Print an error of the SDK; returns the exit code that goes with it."""
    if isinstance(error, OsoraConnectionError):
        next_step = "start the service with `osora serve`, or set OSORA_URL to where it runs"
        if error.interrupted:
            next_step = "run it again; if that does not help, read the service's logs"
        print_error(str(error), next_step, as_json, code="unreachable")
        return ExitCode.UNREACHABLE
    if isinstance(error, OsoraUsageError):
        print_error(str(error), error.next_action, as_json, code="usage")
        return ExitCode.USAGE
    if isinstance(error, OpenAIError):
        print_error(str(error), error.next_action, as_json, code=error.code or "openai_error", status=error.status)
        return ExitCode.UNREACHABLE if error.status is None else _BY_STATUS.get(error.status, ExitCode.FAILED)
    if not isinstance(error, OsoraAPIError):
        print_error(str(error), None, as_json)
        return ExitCode.FAILED
    message = error.message if error.code == _OF_A_FILE else in_flags(error.message, error.param)
    if error.line and f"line {error.line}" not in error.message.lower():
        message = f"{message.rstrip('.')} (line {error.line})"
    details = {
        "status": error.status,
        "param": error.param,
        "line": error.line,
        "field": error.field,
        "problems": error.problems,
        "problem_count": error.problem_count,
        "request_id": error.request_id,
    }
    print_error(message, _advice(error), as_json, code=error.code or "error", **details)
    if not as_json:
        _list_problems(error)
    if error.code == "not_osora":
        return ExitCode.UNREACHABLE
    return _BY_STATUS.get(error.status, ExitCode.FAILED)


def _list_problems(error: OsoraAPIError) -> None:
    """Where else a file is wrong: the first problem is the message itself."""
    if error.problem_count < 2:
        return
    for problem in error.problems[1:_MOST_PROBLEMS]:
        place = " ".join(str(part) for part in (problem.get("line"), problem.get("field")) if part is not None)
        print_note(f"  line {place}: {sentences(problem.get('problem', ''), problem.get('next_action'))}")
    left = error.problem_count - min(len(error.problems), _MOST_PROBLEMS)
    if left > 0:
        print_note(f"  and {left:,} more; with --json the first {len(error.problems)} are listed.")


def _advice(error: OsoraAPIError) -> str | None:
    """What to do, in the command line's own words."""
    if error.status == 401 and error.code != "not_osora":  # the service's own advice is about HTTP headers
        return "set OSORA_API_KEY to a key of this service (`osora key create` makes one)"
    meant = suggestion(error)
    lists = _COMMANDS.get(error.code or "")
    if meant:
        return f"did you mean {meant}? `{lists}` lists all" if lists else f"did you mean {meant}?"
    if lists and (error.next_action or "").startswith("list "):
        return f"`{lists}` lists them"
    if not error.next_action or error.code == _OF_A_FILE:
        return error.next_action
    return in_flags(error.next_action)


def report_usage(error: Exception, as_json: bool) -> ExitCode:
    """Print what typer has to say of a command line that is wrong; returns its exit code."""
    context: Any = getattr(error, "ctx", None)
    message = error.format_message()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        if not as_json:
            typer.echo(message)
            return ExitCode.USAGE
        message = "Missing command."
    path = context.command_path if context is not None else "osora"
    print_error(message, f"`{path} -h` shows how it is used", as_json, code="usage")
    return ExitCode.USAGE
