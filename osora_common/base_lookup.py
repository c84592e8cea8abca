"""Where base models are found: a directory, a bundled one by its name, or a model hub. Nothing is loaded."""

from pathlib import Path

from osora_common.base_facts import BaseFacts, check_files, facts_of
from osora_common.base_hub import ask_hub, downloaded, is_hub_name
from osora_common.unusable_base import NoSuchBaseError, UnusableBaseError

_PACKAGES = Path(__file__).resolve().parents[1]
# An installed wheel carries the bundled bases inside the package; a checkout has them beside it.
_BUNDLED = (_PACKAGES / "osora_core" / "bundled", _PACKAGES / "models")


def resolve(base: str) -> str:
    """What to hand to from_pretrained for `base`: a directory, or a hub name (`owner/name`) as it is.

    Raises NoSuchBaseError, naming where it looked, for anything else.
    """
    if (folder := _folder(base)) is not None:
        return str(folder)
    if is_hub_name(base):
        return base
    path = Path(base).expanduser()
    if path.is_dir():
        reason = "that directory has no config.json"
    elif path.is_file():
        reason = "that is a file, and a base is the directory that its config.json is in"
    else:
        reason = "it is no directory with a config.json"
    bundled = sorted({p.name for folder in _BUNDLED if folder.is_dir() for p in folder.iterdir() if _is_model(p)})
    raise NoSuchBaseError(
        f"no base model called {base!r}: {reason}",
        f"name a bundled base ({', '.join(bundled)}), a model directory, or a hub name owner/name",
    )


def look_up(base: str) -> tuple[str, BaseFacts]:
    """The same, with all that can be told in advance: a base that cannot be loaded is refused here.

    A hub is asked once. Raises UnusableBaseError.
    """
    source = resolve(base)
    if (folder := _folder(base)) is not None:
        facts = facts_of(base, folder)
        check_files(base, folder)
        return source, facts
    found = ask_hub(base)
    facts = facts_of(base, found.folder, found.names)
    check_files(base, found.folder, found.names)
    return found.source, facts


def local_facts(base: str) -> BaseFacts:
    """What can be told of a base from files on this machine alone: nothing, where it is not here.

    Raises UnusableBaseError for a base that is here and cannot be used.
    """
    try:
        resolve(base)
    except NoSuchBaseError:  # whoever loads it may have it
        return BaseFacts()
    folder = _folder(base)
    if folder is not None:
        return facts_of(base, folder)
    cached = downloaded(base)
    try:
        return BaseFacts() if cached is None else facts_of(base, cached)
    except UnusableBaseError:  # half of a download
        return BaseFacts()


def _folder(base: str) -> Path | None:
    """The directory of a base on this machine. Raises NoSuchBaseError where it may not be looked at."""
    try:
        if _is_model(path := Path(base).expanduser()):
            return path.resolve()
        bundled = (folder / base for folder in _BUNDLED if "/" not in base)
        return next((path for path in bundled if _is_model(path)), None)
    except (OSError, RuntimeError) as error:  # the latter where `~name` is nobody's home
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise NoSuchBaseError(
            f"no base model called {base!r}: {reason}", "correct the path or its permissions"
        ) from error


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file()
