"""Jobs that begin with an adapter, and workers that say what their bases are."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("from_adapter_id", sa.String(length=40), nullable=True))
    op.create_index(op.f("ix_jobs_from_adapter_id"), "jobs", ["from_adapter_id"])
    with op.batch_alter_table("workers") as workers:
        workers.add_column(sa.Column("identities", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))


def downgrade() -> None:
    with op.batch_alter_table("workers") as workers:
        workers.drop_column("identities")
    op.drop_index(op.f("ix_jobs_from_adapter_id"), "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("from_adapter_id")
