"""What decides whose turn it is: a job's priority, whether it was interrupted, and when its tenant was last served."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("priority", sa.String(length=10), nullable=False, server_default="normal"))
        jobs.add_column(sa.Column("interrupted", sa.Boolean(), nullable=False, server_default=sa.false()))
        jobs.add_column(sa.Column("claimed_at", sa.Double(), nullable=True))
    op.create_index(op.f("ix_jobs_tenant_id_base_claimed_at"), "jobs", ["tenant_id", "base", "claimed_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_tenant_id_base_claimed_at"), "jobs")
    with op.batch_alter_table("jobs") as jobs:
        for name in ("claimed_at", "interrupted", "priority"):
            jobs.drop_column(name)
