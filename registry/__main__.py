"""`python -m registry init`: prepares an installation; safe to repeat, and from several processes at once.

`python -m registry check` only looks: see `registry.check`. `rotate-secret` makes a new server secret: see
`registry.rotation`.
"""

import argparse
import os
import sys
from pathlib import Path

from filelock import FileLock
from sqlalchemy.engine import make_url

from osora_common.private_files import keep_private
from osora_common.refusal import refusing
from registry import audit, check, migrate, rotation, tenants
from registry.context import Registry
from registry.errors import Forbidden, OsoraError, Unauthorized
from registry.outages import DATABASE_OUTAGES
from registry.settings import Settings, get_settings


def init(settings: Settings) -> None:
    """Migrates the database, makes the default tenant, leaves an operator's key of it in `{data_dir}/local.key`."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(settings.data_dir / "init.lock"):
        migrate.upgrade(settings.database_url)
        with Registry.open(settings) as registry, registry.transaction() as session:
            tenants.ensure_tenant(session)
            rotation.settle(session)
            path = settings.local_key_path
            try:
                tenants.authenticate(session, path.read_text().strip())
            except Forbidden:
                pass  # a good key, whose tenant an operator has suspended
            except (FileNotFoundError, Unauthorized):
                # No key yet, or one of another database or pepper.
                key, plaintext = tenants.create_key(session, tenants.DEFAULT_TENANT, "local", tenants.ALL_SCOPES)
                audit.record(
                    session, None, "key.created", "key", key.id, owner_id=key.tenant_id, scopes=key.scopes, local=True
                )
                _write_private(path, plaintext)


def rotate_secret(settings: Settings, *, finish: bool) -> str:
    """Begins a rotation of the server secret that is kept in the data directory, or ends it; says what comes next.

    Raises:
        Conflict: keys hang on the old secret, or it is not kept there.
    """
    with (
        FileLock(settings.data_dir / "init.lock"),
        Registry.open(settings) as registry,
        registry.transaction() as session,
    ):
        return (rotation.finish if finish else rotation.begin)(settings, session)


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)  # one left over from before may have been open to others
        file.write(text + "\n")
    temporary.replace(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m registry", description="The system of record of Osora.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="migrate the database, create the default tenant and the local key")
    commands.add_parser("check", help="say whether database, object store and broker can be used")
    rotating = commands.add_parser("rotate-secret", help="make a new server secret, and heed the old one as well")
    rotating.add_argument("--finish", action="store_true", help="drop the old one, if no key hangs on it")
    given = parser.parse_args()
    with refusing():
        settings = get_settings()
        if given.command == "check":  # which makes nothing
            check.report(settings)
            return
        is_private = keep_private(settings.data_dir)
    if not is_private:
        print(f"Other users of this machine can look into {settings.data_dir}: chmod 700 it.", file=sys.stderr)
    try:
        if given.command == "init":
            init(settings)
        else:
            print(rotate_secret(settings, finish=given.finish))
    except OsoraError as error:
        sys.exit(f"{error.message}. Next: {error.next_action}.")
    except DATABASE_OUTAGES as error:
        url = make_url(settings.database_url).render_as_string(hide_password=True)
        sys.exit(f"The database {url} does not answer: {' '.join(str(getattr(error, 'orig', error)).split())}")
    except OSError as error:
        place = error.filename or settings.data_dir
        sys.exit(f"{place} cannot be used: {error.strerror}. Next: set OSORA_DATA_DIR to a directory of yours.")


if __name__ == "__main__":
    main()
