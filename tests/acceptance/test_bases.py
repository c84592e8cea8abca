"""A base comes and goes while the service trains and answers: from a GGUF file to an adapter on it, and away again."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from osora.errors import OsoraAPIError
from tests.acceptance.conftest import BASE, Service, dataset
from tests.support.gguf_bases import write_gguf
from tests.support.tiny_base import make_base

_PATIENCE_SECONDS = 240.0


def until(is_so: Callable[[], Any]) -> Any:
    """What it returns, once that is something."""
    for _ in range(int(_PATIENCE_SECONDS / 0.25)):
        if found := is_so():
            return found
        threading.Event().wait(0.25)
    raise AssertionError("it does not come to that")


def made(service: Service, name: str) -> dict[str, Any]:
    """The base once it can be trained and called, or has failed."""

    def look() -> dict[str, Any] | None:
        base = next(one for one in service.sdk.bases.list() if one["name"] == name)
        is_usable = base["state"] == "ready" and (base["loaded"] or base["problem"])
        return dict(base) if base["state"] == "failed" or is_usable else None

    found: dict[str, Any] = until(look)
    return found


def remove(service: Service, name: str) -> None:
    """Until nobody holds it any more: other tests expect the service to have one base."""
    service.sdk.bases.remove(name, leave_adapters=True)
    until(lambda: name not in [one["name"] for one in service.sdk.bases.list()])


def test_a_base_comes_and_goes_while_others_are_answered(service: Service, tmp_path: Path) -> None:
    file = write_gguf(make_base(tmp_path / "base"), tmp_path / "second.gguf")
    over, broken = threading.Event(), list[Exception]()

    def ask_again_and_again() -> None:
        try:
            while not over.is_set():
                stream = service.sdk.stream("Once upon a time", base=BASE, max_tokens=60, temperature=1.0)
                assert "".join(stream) == stream.result["text"]
        except Exception as error:
            broken.append(error)

    asking = threading.Thread(target=ask_again_and_again)
    asking.start()
    try:
        added = service.sdk.bases.add("second", str(file))
        assert (added["state"], added["loaded"]) == ("waiting", False)
        base = made(service, "second")
        assert (base["state"], base["family"], base["problem"]) == ("ready", "llama", None)
        data = service.sdk.files.upload(dataset(tmp_path / "oslo.jsonl", "Oslo", rows=8))
        job = service.sdk.jobs.create("second", data["id"], hyperparameters={"n_epochs": 1, "batch_size": 4})
        for _ in service.sdk.jobs.events(job["id"]):
            pass
        job = service.sdk.jobs.get(job["id"])
        assert job["status"] == "succeeded", job
        adapter = job["fine_tuned_model"]
        assert adapter is not None
        assert service.sdk.generate("Which city?", adapter=adapter, max_tokens=4)["usage"]["completion_tokens"] > 0
        assert "second" in [base["name"] for base in service.sdk.bases()]
        kept = len(list(service.sdk.jobs.checkpoints(job["id"])))  # where a step lasts, one within the epoch
        with pytest.raises(OsoraAPIError, match=f"hang 1 adapter, {kept} checkpoint"):
            service.sdk.bases.remove("second")
        assert service.sdk.bases.remove("second", leave_adapters=True)["adapters"] == 1
        with pytest.raises(OsoraAPIError) as refused:
            service.sdk.generate("Which city?", adapter=adapter, max_tokens=4)
        assert refused.value.code == "base_not_offered"
        folder = service.data_dir / "bases"
        until(lambda: list(folder.iterdir()) == [])  # what was converted is gone, and what it was converted of is not
        assert file.is_file()
    finally:
        over.set()
        asking.join()
    assert broken == []
    service.sdk.bases.add("second", str(file))
    again = made(service, "second")
    assert again["fingerprint"] == base["fingerprint"]
    assert service.sdk.generate("Which city?", adapter=adapter, max_tokens=4)["usage"]["completion_tokens"] > 0
    remove(service, "second")


def test_one_that_cannot_be_used_says_why(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF, says who?")
    service.sdk.bases.add("broken", str(file))
    base = made(service, "broken")
    assert base["state"] == "failed"
    assert "broken.gguf cannot be read as a GGUF file" in base["problem"]
    assert base["next_action"]
    remove(service, "broken")
