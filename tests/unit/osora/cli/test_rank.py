"""What `--rank` takes."""

import pytest
import typer

from osora.cli.train import _rank


def test_a_rank_is_a_number_or_full() -> None:
    assert (_rank(None), _rank("64"), _rank("full")) == (None, 64, "full")
    for text in ("0", "-1", "1.5", "most", ""):
        with pytest.raises(typer.BadParameter, match="is no number from 1 on, nor 'full'"):
            _rank(text)
