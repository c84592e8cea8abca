"""Bases that are added to a running service."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_STATES = ("waiting", "downloading", "converting", "checking", "basis", "ready", "failed")


def upgrade() -> None:
    listed = ", ".join(f"'{state}'" for state in _STATES)
    op.create_table(
        "bases",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("content", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("progress", sa.Double(), nullable=True),
        sa.Column("seconds_left", sa.Double(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("next_action", sa.String(), nullable=True),
        sa.Column("family", sa.String(), nullable=True),
        sa.Column("has_chat_template", sa.Boolean(), nullable=True),
        sa.Column("parameters", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("base_fingerprint", sa.String(length=64), nullable=True),
        sa.Column("basis_fingerprint", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ready_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("lease_token", sa.String(length=40), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.CheckConstraint(f"state IN ({listed})", name=op.f("ck_bases_state")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_bases")),
        sa.UniqueConstraint("id", name=op.f("uq_bases_id")),
    )


def downgrade() -> None:
    op.drop_table("bases")
