"""The points of the dial that a job was accepted with, and the mix of an adapter."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("points", sa.JSON(none_as_null=True), nullable=True))
    for name in ("adapters", "checkpoints"):
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("mix", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("checkpoints", "adapters"):
        with op.batch_alter_table(name) as table:
            table.drop_column("mix")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("points")
