"""Which URLs of object stores a setting may have."""

from typing import Annotated

from obstore import parse_scheme
from obstore.exceptions import BaseError
from pydantic import AfterValidator

DATABASE_STORE = "db:"
"""Objects as rows of the registry's database."""


def _store_url(url: str) -> str:
    try:
        parse_scheme(url)
    except (BaseError, ValueError) as error:
        # Never the whole URL, which may hold a key.
        raise ValueError(
            f"{url.partition(':')[0][:20]!r} is no kind of object store, or the rest of the URL is missing: "
            "use file:///path, s3://bucket, gs://bucket or az://container"
        ) from error
    return url


def _or_database(url: str) -> str:
    return url if url == DATABASE_STORE else _store_url(url)


StoreUrl = Annotated[str, AfterValidator(_store_url)]
"""A store that any program of ours can read."""

RegistryStoreUrl = Annotated[str, AfterValidator(_or_database)]
"""The same, or the database."""
