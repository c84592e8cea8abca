"""When an engine is not trusted any more."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from osora_core.training.errors import DeviceLostError
from worker.threads import EngineThread


def raises(error: Exception) -> Callable[[Any], None]:
    def function(engine: Any) -> None:
        raise error

    return function


def test_what_goes_wrong_in_a_function_is_its_callers_unless_the_devices_have_parted() -> None:
    failed = threading.Event()
    thread = EngineThread(cast(Any, SimpleNamespace(jobs={})), failed.set)
    thread.start()
    try:
        with pytest.raises(KeyError):
            thread.call(raises(KeyError()))
        assert thread.call(lambda engine: engine.jobs) == {}
        assert not failed.is_set()
        with pytest.raises(DeviceLostError):
            thread.call(raises(DeviceLostError()))
        assert failed.wait(60)
    finally:
        thread.stop(5)
