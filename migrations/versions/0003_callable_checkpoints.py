"""Every checkpoint has an adapter of its own, and outlives the state that a job resumes from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ADDED = (
    "ends_epoch",
    "adapter_key",
    "adapter_sha256",
    "adapter_bytes",
    "base_fingerprint",
    "basis_fingerprint",
    "rank",
)


def upgrade() -> None:
    # What is stored of them is in a format that is no longer read, so nothing is lost with the rows: a job that had
    # not ended begins anew.
    op.execute("DELETE FROM checkpoints")
    with op.batch_alter_table("checkpoints") as checkpoints:
        checkpoints.alter_column("object_key", existing_type=sa.String(), nullable=True)
        checkpoints.add_column(sa.Column("ends_epoch", sa.Boolean(), nullable=False))
        checkpoints.add_column(sa.Column("adapter_key", sa.String(), nullable=False))
        checkpoints.add_column(sa.Column("adapter_sha256", sa.String(length=64), nullable=False))
        checkpoints.add_column(sa.Column("adapter_bytes", sa.BigInteger(), nullable=False))
        checkpoints.add_column(sa.Column("base_fingerprint", sa.String(), nullable=False))
        checkpoints.add_column(sa.Column("basis_fingerprint", sa.String(), nullable=False))
        checkpoints.add_column(sa.Column("rank", sa.BigInteger(), nullable=False))
    op.create_index(op.f("ix_checkpoints_adapter_key"), "checkpoints", ["adapter_key"])
    with op.batch_alter_table("adapters") as adapters:
        adapters.add_column(sa.Column("step", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("adapters") as adapters:
        adapters.drop_column("step")
    op.drop_index(op.f("ix_checkpoints_adapter_key"), "checkpoints")
    op.execute("DELETE FROM checkpoints")
    with op.batch_alter_table("checkpoints") as checkpoints:
        for name in _ADDED[::-1]:
            checkpoints.drop_column(name)
        checkpoints.alter_column("object_key", existing_type=sa.String(), nullable=False)
