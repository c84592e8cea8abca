"""Whatever is fetched, added up, acknowledged or killed in whatever order: each record is in the sums once."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference import spool as spools
from inference.spool import Spool
from registry import usage
from registry.context import Registry
from registry.tenants import Principal
from registry.usage import Generated

NOW = int(time.time())
Batch = tuple[str, list[tuple[int, dict[str, Any]]]]

acts = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(1, 5)),
        st.tuples(st.just("fetch"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["add", "die adding", "acknowledge"]), st.integers(0, 3)),
        st.tuples(st.sampled_from(["die", "die writing"]), st.just(0)),
    ),
    max_size=30,
)


class World:
    """An inference server that dies and comes back, and API processes that fetched from it at one time or another."""

    def __init__(self, registry: Registry, principal: Principal, folder: Path) -> None:
        self.registry = registry
        self.principal = principal
        self.folder = folder
        self.spool = Spool(folder, 10**9)
        self.fetched: list[Batch] = []
        self.added: list[tuple[str, int]] = []
        self.made = 0

    def act(self, name: str, number: int) -> None:
        match name:
            case "record":
                for _ in range(number):
                    self.made += 1
                    self.spool.append({"completion_tokens": self.made})
            case "fetch" if (batch := self.spool.take(number)) is not None:
                self.fetched.append(batch)
            case "add" if number < len(self.fetched):
                self.added.append(self.add(self.fetched[number]))
            case "die adding" if number < len(self.fetched):
                with pytest.raises(KeyboardInterrupt):
                    self.add(self.fetched[number], dies=True)
            case "acknowledge" if number < len(self.added):
                segment, upto = self.added[number]
                self.spool.acknowledge({segment: upto})
            case "die" | "die writing":
                self.spool.close()  # nothing is written at the end of a process
                for path in self.folder.iterdir() if name == "die writing" else ():
                    with path.open("ab") as file:
                        file.write(b"1234abcd {")
                self.spool = Spool(self.folder, 10**9)

    def add(self, batch: Batch, *, dies: bool = False) -> tuple[str, int]:
        segment, said = batch
        records = [self._generated(number, record["completion_tokens"]) for number, record in said]
        upto = said[-1][0]
        with self.registry.transaction() as session:
            usage.take_over(session, segment, records, upto)
            if dies:
                raise KeyboardInterrupt
        return segment, upto

    def add_the_rest(self) -> None:
        while (batch := self.spool.take(3)) is not None:
            segment, upto = self.add(batch)
            self.spool.acknowledge({segment: upto})
        self.spool.close()

    def sums(self) -> tuple[int, int]:
        with self.registry.reading() as session:
            spent = usage.spent(session, self.principal.tenant_id, since=NOW - 24 * 3600)
        return spent.requests, spent.completion_tokens

    def _generated(self, number: int, tokens: int) -> Generated:
        who = (self.principal.tenant_id, self.principal.key_id)
        return Generated(number, *who, "osora-tiny", "", "chat", 1, tokens, NOW)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=acts)
def test_each_record_counts_once(
    registry: Registry, principal: Principal, tmp_path_factory: pytest.TempPathFactory, acts: Sequence[tuple[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spools, "_SEGMENT_BYTES", 100)
        world = World(registry, principal, tmp_path_factory.mktemp("usage"))
        requests, tokens = world.sums()
        for name, number in acts:
            world.act(name, number)
        world.add_the_rest()
        assert world.sums() == (requests + world.made, tokens + sum(range(world.made + 1)))
