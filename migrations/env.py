"""Runs migrations on the connection that `registry.migrate` hands over, inside its transaction."""

from alembic import context

from registry.models import Base
from registry.names import tables as tables

connection = context.config.attributes["connection"]
# Batch mode: SQLite cannot alter most things in place, so Alembic copies the table.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
