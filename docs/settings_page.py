"""`python -m docs.settings_page`: writes docs/settings.md from the settings classes, so that neither can drift.

A class says name, type, default and meaning of each setting; this program only lays them out. What processes read from
the environment without a class is listed here, and a test finds any that is missing.
"""

import inspect
import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from console.settings import ConsoleSettings
from inference.settings import InferenceSettings
from registry.settings import Settings

PAGE = Path(__file__).with_name("settings.md")

# Read without a class: by the client, which knows none of the service's, and by the library.
OTHERS = {
    "OSORA_URL": ("the running `osora serve`, else `http://127.0.0.1:8000`", "The service that `osora` talks to."),
    "OSORA_API_KEY": (
        "for a service on this machine, `{data_dir}/local.key`",
        "The key that `osora` sends.",
    ),
    "OSORA_DEBUG": ("none", "`1`: `osora` shows the traceback of an error that it did not expect."),
    "OSORA_CACHE": ("`~/.cache/osora`", "Where `osora_core` as a library keeps the basis of each base."),
    "OSORA_BASIS_FROM": (
        "none",
        "Where `osora_core` as a library finds a basis by its hash: a folder of files `<hash>.safetensors`, the URL of "
        "one, or a URL with `{hash}` in it, such as a service's `http://127.0.0.1:8000/bases/{hash}/basis` "
        "(`OSORA_API_KEY` is sent to `OSORA_URL` alone).",
    ),
    "OSORA_TEST_DATABASE_URL": ("a server of their own", "A PostgreSQL for the tests."),
    "OSORA_TEST_REDIS_URL": ("a server of their own", "A Redis for the tests."),
}

_HEAD = """# Settings

Every setting is an environment variable. `osora serve`, the containers and the single programs read the same ones.
A value that cannot be used is refused at the start, in one sentence that names it.

This page is made by `make docs` from the settings classes; change it there.
"""


def render() -> str:
    """The page."""
    both = [name for name in InferenceSettings.model_fields if name in Settings.model_fields]
    own = [name for name in InferenceSettings.model_fields if name not in Settings.model_fields]
    service = [_row(name, field) for name, field in Settings.model_fields.items()]
    console = [_row(name, field, ConsoleSettings) for name, field in ConsoleSettings.model_fields.items()]
    inference = [_row(name, InferenceSettings.model_fields[name]) for name in own]
    others = [f"| `{name}` | {default} | {meaning} |" for name, (default, meaning) in OTHERS.items()]
    shared = ", ".join(f"`{_variable(name)}`" for name in both)
    return "\n".join(
        [
            _HEAD,
            "## API, worker and database\n",
            *_table(service),
            "\n## Inference server\n",
            f"It reads its own and, with the same meaning as above, {shared}.\n",
            *_table(inference),
            "\n## Console\n",
            "It reads none of the others.\n",
            *_table(console),
            "\n## Client, library and tests\n",
            *_table(others),
            "",
        ]
    )


def _table(rows: list[str]) -> list[str]:
    return ["| variable | default | what it decides |", "|---|---|---|", *rows]


def _row(name: str, field: FieldInfo, of: type[BaseSettings] = Settings) -> str:
    if not field.description:
        raise ValueError(f"the setting {name} has no docstring that says what it decides")
    meaning = " ".join(inspect.cleandoc(field.description).split())
    values = _values(field)
    return f"| `{_variable(name, of)}` | {_default(field)} | {meaning}{values} |"


def _variable(name: str, of: type[BaseSettings] = Settings) -> str:
    prefix = of.model_config.get("env_prefix", "")
    return f"{prefix}{name}".upper()


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        factory: Any = field.default_factory
        value = factory({"data_dir": "{data_dir}"}) if field.default_factory_takes_validated_data else factory()
    if value in (None, {}, ""):
        return "none"
    return f"`{value}`"


def _values(field: FieldInfo) -> str:
    """The choices of a setting that has few."""
    choices = [c for literal in _literals(field.annotation) for c in get_args(literal)]
    return "" if not choices else " Values: " + ", ".join(f"`{c}`" for c in choices) + _or_number(field.annotation)


def _or_number(annotation: Any) -> str:
    return " or a number." if any(part is int for part in _parts(annotation)) else "."


def _literals(annotation: Any) -> list[Any]:
    return [part for part in _parts(annotation) if get_origin(part) is Literal]


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) is Literal or not get_args(annotation):
        return [annotation] if annotation not in (NoneType, SecretStr) else []
    return [found for part in get_args(annotation) for found in _parts(part)]


def variables_in(source: str) -> set[str]:
    """The OSORA_* names that a program's text reads from the environment by name."""
    return set(re.findall(r"environ(?:\.get)?[\[(]\s*[\"'](OSORA_\w+)", source))


def main() -> None:
    """The command."""
    PAGE.write_text(render())


if __name__ == "__main__":
    main()
