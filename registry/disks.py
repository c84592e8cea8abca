"""Free space where the service writes: what is kept free is what deleting needs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from sqlalchemy.engine import make_url

from registry.errors import StorageFull
from registry.settings import Settings


def shortage(settings: Settings) -> str | None:
    """Which of the places has less than `min_free_bytes` free, in words; None: all have enough."""
    for name, folder in _places(settings):
        free = shutil.disk_usage(_existing(folder)).free
        if free < settings.min_free_bytes:
            return f"{name}: {free / 2**20:,.0f} MiB free, less than {settings.min_free_bytes / 2**20:,.0f}"
    return None


def refuse_if_short(settings: Settings) -> None:
    """Raises `StorageFull` before something large is taken in; deleting is never refused."""
    if shortage(settings) is not None:
        raise StorageFull(
            "the service has too little free disk space: nothing was stored",
            next_action="delete files or adapters that are no longer needed, or tell whoever runs the service",
        )


def _places(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Those on disks of this machine."""
    yield "data directory", settings.data_dir
    yield "temporary files", settings.data_dir / "tmp"
    database = make_url(settings.database_url)
    if database.get_backend_name() == "sqlite":
        yield "database", Path(database.database or "")
    store = urlparse(settings.object_store)
    if store.scheme == "file":
        yield "object store", Path(unquote(store.path))


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return path if path.exists() else _existing(path.parent)
