"""The link that signs in once."""

import stat
from pathlib import Path

from osora.serve.console_link import issue, redeem


def test_a_link_is_good_once_and_only_the_newest_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    old, new = (issue(tmp_path, "http://127.0.0.1:8010").partition("?once=")[2] for _ in range(2))
    kept = tmp_path / "run" / "console-link"
    assert new not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [redeem(tmp_path, token) for token in (old, "", "no such", new, new)] == [False, False, False, True, False]


def test_where_there_is_no_link_nothing_is_one(tmp_path: Path) -> None:
    assert not redeem(tmp_path, "anything")
