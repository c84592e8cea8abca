"""`osora adapters import`."""

from pathlib import Path
from typing import Annotated

import typer

from osora.cli.names import completing
from osora.cli.output import Json, print_json, say
from osora.sdk import Osora

_CONFIG = "adapter_config.json"


def import_adapter(
    source: Annotated[
        Path, typer.Argument(metavar="DIR|ZIP", exists=True, help="A folder that PEFT saved, or a ZIP of one.")
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The adapter's base. Default: the only one on offer.", autocompletion=completing("base")),
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="Becomes a part of its name.")] = None,
    as_json: Json = False,
) -> None:
    """Bring an adapter: an OSoRA adapter or a plain LoRA of a base on offer, served as it is."""
    if source.is_dir() and not (source / _CONFIG).is_file():
        raise typer.BadParameter(
            f"{source} has no {_CONFIG}; name the folder that PEFT's save_pretrained wrote", param_hint="DIR|ZIP"
        )
    with Osora() as osora:
        made = osora.adapters.upload(source, base=base, suffix=suffix)
    if as_json:
        print_json(made)
        return
    for warning in made["warnings"]:
        say(f"Note: {warning}.")
    say(f"{made['name']}: {made['type']}, rank {made['rank']}. Next: osora generate PROMPT --adapter {made['id']}")
