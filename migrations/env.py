"""Runs migrations on the connection that `registry.migrate` hands over, inside its transaction."""

from alembic import context

import registry.added_bases.tables
import registry.audit_tables
import registry.limits.tables
import registry.measures
import registry.names.tables
import registry.overlaps
import registry.upload_tables
import registry.usage.tables
import registry.webhooks.tables  # noqa: F401  (all: their tables belong to the metadata)
from registry.models import Base

connection = context.config.attributes["connection"]
# Batch mode: SQLite cannot alter most things in place, so Alembic copies the table.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
