"""A text column that both databases treat alike."""

from typing import Any

from sqlalchemy import Dialect, String
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeDecorator

from registry.errors import InvalidRequest


class UnstorableText(InvalidRequest, DontWrapMixin):
    """Text that PostgreSQL cannot hold; raised as itself, not wrapped by SQLAlchemy."""

    code = "unstorable_text"


class PlainText(TypeDecorator[str]):
    """Text without NUL and without lone surrogates.

    PostgreSQL takes neither and SQLite takes the first, so an identifier from a request could end as a
    server error on one of them. Here it is the caller's error on both.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Raises `UnstorableText`; SQLAlchemy calls this for every value on its way to the database."""
        if isinstance(value, str):
            check_storable(value)
        return value


def is_storable(text: str) -> bool:
    """Whether a `PlainText` column takes it."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def check_storable(text: str, param: str | None = None) -> None:
    """Raises `UnstorableText`, which names `param`, for what no `PlainText` column takes."""
    if not is_storable(text):
        raise UnstorableText(
            f"{text[:60]!a} has a character that cannot be stored",
            param=param,
            next_action="remove NULs and surrogates",
        )
