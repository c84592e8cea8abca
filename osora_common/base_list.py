"""The list of base models in `OSORA_BASES`."""

from typing import Annotated

from pydantic import AfterValidator


def parse_bases(value: str) -> list[tuple[str, str]]:
    """Name and path (or hub name) of each base in a comma list of `name` or `name=path`, in the order given.

    A name without a path is its own path. Nothing is checked: see `BaseList`.
    """
    pairs = (entry.strip().partition("=") for entry in value.split(",") if entry.strip())
    return [(name.strip(), path.strip() or name.strip()) for name, _, path in pairs]


def _well_formed(value: str) -> str:
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    if not entries:
        raise ValueError(f"{value!r} must list at least one base, as `name` or `name=path`, comma-separated")
    names: list[str] = []
    for entry in entries:
        name, equals, path = (part.strip() for part in entry.partition("="))
        if not name or (equals and not path):
            missing = "name before" if not name else "path or hub name after"
            raise ValueError(f"{entry!r} has no {missing} its `=`: write each base as `name` or `name=path`")
        if any(character.isspace() or not character.isprintable() for character in name):
            raise ValueError(f"{entry!r} names a base {name!r}, with blanks in it: separate bases by commas")
        if name in names:
            raise ValueError(f"{value!r} names a base twice, {name!r}: give each base a name of its own")
        names.append(name)
    return value


BaseList = Annotated[str, AfterValidator(_well_formed)]
"""A list of bases that can be used: at least one, each with a name of its own."""
