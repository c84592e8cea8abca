"""What a worker does with bases that were added and are ready."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from osora_core.basis import BasisCache
from registry.added_bases import adding, preparing
from registry.context import Registry
from registry.tenants import Principal
from worker import bases
from worker.bases import BaseKeeper
from worker.node import Node


def test_a_base_that_a_library_stumbles_over_does_not_keep_others_from_being_loaded(
    registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good"):
        with registry.transaction() as session:
            adding.add(session, principal, registry.settings, name, f"/models/{name}")
        with registry.transaction() as session:
            held = preparing.claim(session, "worker-1", 60)
        assert held is not None
        with registry.transaction() as session:
            assert preparing.finish(session, held, {})
    tried: list[str] = []

    def load(name: str, *_: Any, **__: Any) -> object:
        tried.append(name)
        if name == "bad":
            raise IndexError("of a library")
        return SimpleNamespace(name=name)

    monkeypatch.setattr(bases, "Runtime", SimpleNamespace(load=load))
    node = SimpleNamespace(add_base=lambda _: None, heed_base=lambda _: None)
    taken: list[str] = []
    cache = BasisCache(registry.settings.data_dir / "cache")
    keeper = BaseKeeper(registry, cast(Node, node), cache, taken.append, lambda _: None)
    keeper.look()
    assert taken == ["good"]
    keeper.look()
    assert tried == ["bad", "good"]  # it is tried again later, not at every look
