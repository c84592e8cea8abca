"""What is answered for a base that was added and is not there."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from inference.bases import Bases
from inference.errors import ServerError
from inference.schemas import AddBase
from inference.settings import InferenceSettings


def test_a_base_whose_files_are_gone_is_not_blamed_on_the_settings(tmp_path: Path) -> None:
    async def ask() -> None:
        bases = Bases(InferenceSettings(data_dir=tmp_path), cast(Any, None), cast(Any, None))
        bases.add(AddBase(name="second", id="base-1", source=str(tmp_path / "gone"), content=None))
        with pytest.raises(ServerError, match="is still loading the base 'second'"):
            bases.held("second")
        added = bases._added["second"]
        assert added.task is not None
        await added.task
        with pytest.raises(ServerError, match="does not hold the base 'second'") as refused:
            bases.held("second")
        assert "osora bases" in str(refused.value.body)
        assert str(tmp_path) not in str(refused.value.body)

    asyncio.run(ask())
