"""What all containers are: an iterator over values of rows, each with the line on which it begins."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

from osora_data.problems import Problem

Item: TypeAlias = "tuple[int, Any] | Problem"
"""A row's line and value, or what is wrong with it."""


class Container(Protocol):
    """Raises BrokenFileError where it cannot be read further, and `line` is then the line of that."""

    @property
    def line(self) -> int: ...

    def __iter__(self) -> Iterator[Item]: ...
