"""Where base models are found: a path, the bundled ones by name, or a model hub id."""

from pathlib import Path

from osora_core.errors import UnknownBase

_PACKAGE = Path(__file__).parent
# An installed wheel carries the bundled bases inside the package; a checkout has them beside it.
_BUNDLED = (_PACKAGE / "bundled", _PACKAGE.parent / "models")


def resolve(base: str) -> str:
    """What to hand to from_pretrained for `base`: a directory, or a hub id (`owner/name`) as it is.

    Raises UnknownBase, naming where it looked, for anything else.
    """
    if _is_model(Path(base)):
        return str(Path(base).resolve())
    for folder in _BUNDLED:
        if "/" not in base and _is_model(folder / base):
            return str(folder / base)
    if base.count("/") == 1 and not base.startswith((".", "/", "~")):
        return base
    bundled = sorted({p.name for folder in _BUNDLED if folder.is_dir() for p in folder.iterdir() if _is_model(p)})
    raise UnknownBase(
        f"no base model called {base!r}: it is no directory with a config.json",
        param="model",
        next_action=f"name a bundled base ({', '.join(bundled)}), a model directory, or a hub id owner/name",
    )


def public_name(name: str, source: str) -> str:
    """What the world calls base `name`, loaded from `source` (see `resolve`): its hub id if it has one, else `name`.

    A directory of this machine means nothing elsewhere, unless the hub's own cache says whose it is. What a config.json
    says of itself is not asked: a model that was trained further often bears the name of the one that it came from.
    """
    if source.count("/") == 1 and not _is_model(Path(source)):
        return source
    for folder in Path(source).parents:
        owner, _, model = folder.name.removeprefix("models--").partition("--")
        if folder.name.startswith("models--") and model:
            return f"{owner}/{model}"
    return name


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file()
