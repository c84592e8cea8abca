"""Models for tests in a browser."""

from pathlib import Path
from typing import Any

from tests.acceptance.conftest import BASE, Service, dataset

SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


def learned(service: Service, folder: Path, answer: str, suffix: str) -> str:
    """The id of an adapter that says this whatever it is asked, and was measured before and after."""
    file = service.sdk.files.upload(dataset(folder / f"{suffix}.jsonl", answer))
    hyperparameters: Any = {"n_epochs": 20, "batch_size": 8}
    job = service.sdk.jobs.create(
        BASE, file["id"], suffix=suffix, seed=1, hyperparameters=hyperparameters, osora={"validation_share": 0.2}
    )
    ended = service.sdk.jobs.wait(job["id"])
    assert ended["status"] == "succeeded", ended
    return str(ended["osora"]["adapter_id"])


def copied(service: Service, adapter: str, folder: Path, suffix: str) -> str:
    """The id of the same adapter once more, brought from a file."""
    path = folder / f"{suffix}.zip"
    service.sdk.adapters.download(adapter, path)
    return service.sdk.adapters.upload(path, BASE, suffix)["id"]
