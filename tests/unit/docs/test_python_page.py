"""docs/python.md names every method of what an operator uses, and none that there is not."""

import re
from pathlib import Path

import pytest

from osora import Osora

PAGE = (Path(__file__).parents[3] / "docs" / "python.md").read_text()
ROWS = dict(re.findall(r"^\| `osora\.([a-z]+)` \| (.*) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("name", ["tenants", "keys", "limits", "usage", "audit"])
def test_every_method_is_there_and_each_that_is_there_exists(name: str) -> None:
    resource = getattr(Osora("http://osora.test", "osk-test"), name)
    exist = {method for method in dir(resource) if not method.startswith("_")}
    named = set(re.findall(r"(?<![\w.])([a-z]+(?:_[a-z]+)*)\(", ROWS[name]))
    named |= set(re.findall(r"`([a-z]+_[a-z]+(?:_[a-z]+)?)`", ROWS[name]))
    assert named == exist
