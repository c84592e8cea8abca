"""`osora tenant limits` and `osora key limits`."""

from collections.abc import Callable
from typing import Annotated

import typer

from osora.cli.names import completing
from osora.cli.output import Json, print_json, print_table
from osora.schemas import Limits
from osora.sdk import Osora

_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Such as requests_per_minute=600 or stored_bytes=unlimited; repeatable."
    ),
]
_Reset = Annotated[bool, typer.Option("--reset", help="Take back all that was set.")]
_SHOWN = ("limit", "value", "used", "set here")


def of_tenant(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completing("tenant"))],
    change: _Set = None,
    reset: _Reset = False,
    as_json: Json = False,
) -> None:
    """What a tenant may take, and takes; with --set, set it (needs a key with the scope operator)."""
    with Osora() as osora:
        limits = _changed(
            change,
            reset,
            lambda: osora.limits.of_tenant(name),
            lambda values: osora.limits.set_for_tenant(name, values),
            lambda: osora.limits.reset_for_tenant(name),
        )
    _show(limits, as_json)


def of_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", autocompletion=completing("key"))],
    change: _Set = None,
    reset: _Reset = False,
    as_json: Json = False,
) -> None:
    """What a key may take, beside what its tenant may; with --set, set it (needs one with the scope admin)."""
    with Osora() as osora:
        limits = _changed(
            change,
            reset,
            lambda: osora.limits.of_key(key_id),
            lambda values: osora.limits.set_for_key(key_id, values),
            lambda: osora.limits.reset_for_key(key_id),
        )
    _show(limits, as_json)


def _changed(
    change: list[str] | None,
    reset: bool,
    get: Callable[[], Limits],
    put: Callable[[dict[str, int | str]], Limits],
    delete: Callable[[], Limits],
) -> Limits:
    """The limits, after the change that is asked for: what is not named stays as it was set."""
    if reset and change:
        raise typer.BadParameter("--set and --reset cannot go together", param_hint="--reset")
    if reset:
        return delete()
    if not change:
        return get()
    wanted = dict(map(_parsed, change))
    return put({**get()["overrides"], **wanted})


def _parsed(text: str) -> tuple[str, int | str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as requests_per_minute=600", param_hint="--set")
    return name, int(value) if value.isdecimal() else value


def _show(limits: Limits, as_json: bool) -> None:
    if as_json:
        print_json(limits)
        return
    used, overrides = limits.get("used", {}), limits.get("overrides", {})
    rows = [
        (name, value, used.get(name), "yes" if name in overrides else None) for name, value in limits["limits"].items()
    ]
    print_table(_SHOWN, rows, "No limits.")
