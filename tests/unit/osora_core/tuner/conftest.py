"""Every tuner test finds its bases in one cache of the session, never in the developer's own."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """PEFT uses transformers' older name for checkpointing, on which newer versions warn; that is theirs to mend."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"))


@pytest.fixture(scope="session")
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("osora-cache")


@pytest.fixture(autouse=True)
def _own_cache(cache_directory: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("OSORA_CACHE", str(cache_directory))
