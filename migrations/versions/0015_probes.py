"""Probes: a few steps of a job that is not there yet."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("probe_steps", sa.BigInteger(), nullable=True))
        jobs.add_column(sa.Column("probe_until", sa.Double(), nullable=True))


def downgrade() -> None:
    # Nobody but this version would know them for what they are.
    probes = "(SELECT id FROM jobs WHERE probe_steps IS NOT NULL)"
    for table in ("outbox", "job_events", "job_attempts", "checkpoints"):
        op.execute(f"DELETE FROM {table} WHERE job_id IN {probes}")
    op.execute("DELETE FROM jobs WHERE probe_steps IS NOT NULL")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("probe_until")
        jobs.drop_column("probe_steps")
