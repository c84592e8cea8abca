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


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file()
