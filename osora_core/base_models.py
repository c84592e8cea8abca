"""Base models by name, for the library: see `osora_common.base_lookup`, whose refusals become errors of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from osora_common import base_lookup
from osora_common.unusable_base import NoSuchBaseError, UnsupportedFamilyError, UnusableBaseError
from osora_core.errors import UnknownBase, UnsupportedBase, UserError

T = TypeVar("T")


def resolve(base: str) -> str:
    """What to hand to from_pretrained for `base`: a directory, or a hub name (`owner/name`) as it is.

    Raises UnknownBase, naming where it looked, for anything else.
    """
    return _translated(lambda: base_lookup.resolve(base))


def look_up(base: str) -> str:
    """The same, for a base that is about to be loaded: one that cannot be is refused, at once and by one question to
    the hub at most. Raises UnknownBase, UnsupportedBase or UserError."""
    return _translated(lambda: base_lookup.look_up(base)[0])


def public_name(name: str, source: str) -> str:
    """What the world calls base `name`, loaded from `source` (see `resolve`): its hub id if it has one, else `name`.

    A directory of this machine means nothing elsewhere, unless the hub's own cache says whose it is. What a config.json
    says of itself is not asked: a model that was trained further often bears the name of the one that it came from.
    """
    if source.count("/") == 1 and not (Path(source) / "config.json").is_file():
        return source
    for folder in Path(source).parents:
        owner, _, model = folder.name.removeprefix("models--").partition("--")
        if folder.name.startswith("models--") and model:
            return f"{owner}/{model}"
    return name


def _translated(look: Callable[[], T]) -> T:
    try:
        return look()
    except UnusableBaseError as error:
        kind = UserError
        if isinstance(error, NoSuchBaseError):
            kind = UnknownBase
        elif isinstance(error, UnsupportedFamilyError):
            kind = UnsupportedBase
        raise kind(error.message, param="model", next_action=error.next_action) from error
