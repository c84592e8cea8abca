"""`python -m registry check`: whether database, object store and broker can be used, without making anything.

A line of JSON for each: `item`, `message`, and `next_action`, which is null where nothing is wrong. A base that was
added and is ready has one too, with its `source`: whoever asks looks at its files.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from obstore.exceptions import BaseError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from osora_common.base_source import is_made_here
from osora_common.store_url import DATABASE_STORE
from registry import migrate, rotation
from registry.added_bases import preparing
from registry.added_bases.preparing import ReadyBase
from registry.context import Registry
from registry.db import make_engine, read_only
from registry.outages import first_line
from registry.publisher import Publisher
from registry.settings import Settings
from registry.store import ObstoreStore

_FILES = "file://"


def report(settings: Settings) -> None:
    """Print what is found, a line as soon as it is known."""
    for item, message, next_action in _findings(settings):
        print(json.dumps({"item": item, "message": message, "next_action": next_action}), flush=True)
    for base in _added_bases(settings):
        said = {"item": f"base {base.name}", "message": "was added to the running service", "next_action": None}
        place = Path(settings.data_dir, "bases", base.content or "") if is_made_here(base.source) else base.source
        if isinstance(place, str) or place.is_dir():
            said["source"] = str(place)
        else:
            said["message"] = f"it is converted again at the next start, of {base.source}"
        print(json.dumps(said), flush=True)


def _findings(settings: Settings) -> Iterator[tuple[str, str, str | None]]:
    yield "database", *_database(settings)
    yield "object store", *_store(settings)
    if "broker_url" in settings.model_fields_set:
        yield "broker", *_broker(settings)
    if (settings.secret_key is not None or settings.secret_key_path.exists()) and settings.server_secrets.fallbacks:
        yield "server secret", *_server_secret(settings)


def _database(settings: Settings) -> tuple[str, str | None]:
    url = make_url(settings.database_url)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return _to_be_made(Path(url.database or ""), shown, "OSORA_DATABASE_URL")
    engine = make_engine(url)
    try:
        with read_only(engine).connect() as connection:
            present = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        return f"{shown} does not answer: {reason}", "start the database, or set OSORA_DATABASE_URL"
    finally:
        engine.dispose()
    newest = migrate.newest_schema()
    if present != newest:
        return f"{shown} answers; the next start brings it from schema {present} to {newest}", None
    return f"{shown} answers, with the newest schema ({newest})", None


def _added_bases(settings: Settings) -> list[ReadyBase]:
    """Those that are loaded at the next start; none where the database says nothing yet."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return []
    engine = make_engine(url)
    try:
        with Session(read_only(engine)) as session:
            return [base for base in preparing.ready(session) if base.name not in settings.base_paths]
    except SQLAlchemyError:  # which is said of the database, or it has no such table yet
        return []
    finally:
        engine.dispose()


def _store(settings: Settings) -> tuple[str, str | None]:
    if settings.object_store.startswith(_FILES):
        folder = Path(settings.object_store.removeprefix(_FILES))
        if not folder.exists():
            return _to_be_made(folder, str(folder), "OSORA_OBJECT_STORE")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return f"{folder} cannot be written", "give this user rights to it, or set OSORA_OBJECT_STORE"
        return f"{folder} can be written", None
    if settings.object_store == DATABASE_STORE:
        return "in the database", None
    try:
        next(iter(ObstoreStore(settings.object_store, settings.object_store_options).list("files")), None)
    except (BaseError, OSError) as error:
        return f"{settings.object_store} cannot be read: {first_line(error)}", (
            "check OSORA_OBJECT_STORE and OSORA_OBJECT_STORE_OPTIONS"
        )
    return f"{settings.object_store} can be read", None


def _broker(settings: Settings) -> tuple[str, str | None]:
    publisher = Publisher(settings.broker_url)
    try:
        publisher.ping()
    except Exception as error:  # of whichever client its URL takes
        return f"OSORA_BROKER_URL does not answer: {first_line(error)}", "start the broker, or correct OSORA_BROKER_URL"
    finally:
        publisher.close()
    return "OSORA_BROKER_URL answers", None


def _server_secret(settings: Settings) -> tuple[str, str | None]:
    try:
        with Registry.open(settings) as registry, registry.reading() as session:
            left = rotation.hanging(session)
    except SQLAlchemyError:  # which is said of the database
        return "whether keys hang on a fallback is not known", None
    if left == 0:
        return "no key hangs on a fallback any more: it can be taken away", None
    return f"{left} {'key hangs' if left == 1 else 'keys hang'} on a fallback: each goes over when it is used", None


def _to_be_made(path: Path, shown: str, setting: str) -> tuple[str, str | None]:
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        return f"{shown} is made at the first start", None
    next_action = f"set {setting}, or OSORA_DATA_DIR, to a place of yours"
    return f"{shown} cannot be made: {parent} cannot be written", next_action
