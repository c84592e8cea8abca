"""What `osora serve` and `osora doctor` need beyond a client: said in a sentence where it is missing."""

import importlib.util
import sys

from osora.errors import OsoraUsageError

# The largest of the extra `server`, one for each of our programs at least.
_NEEDED = ("alembic", "celery", "fastapi", "torch", "transformers", "uvicorn")


def require_server() -> None:
    """Raises OsoraUsageError where this installation, or this system, is a client only."""
    if sys.platform == "win32":
        raise OsoraUsageError(
            "Osora serves on Linux and macOS, and on Windows inside WSL; Windows itself has the client",
            "run it there, and set OSORA_URL and OSORA_API_KEY here",
        )
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        raise OsoraUsageError(
            f"This installation of Osora is a client: it has no {' and no '.join(missing)}",
            "pip install 'osora[server]'",
        )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
