"""What was used, by day, key, model and kind."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_KINDS = ("generate", "chat", "completions", "responses", "messages", "training", "probe")


def upgrade() -> None:
    listed = ", ".join(f"'{kind}'" for kind in _KINDS)
    counters = ("requests", "prompt_tokens", "completion_tokens", "trained_tokens", "steps")
    op.create_table(
        "usage_days",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.String(length=60), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counters),
        sa.Column("compute_seconds", sa.Double(), nullable=False),
        sa.CheckConstraint(f"kind IN ({listed})", name=op.f("ck_usage_days_kind")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_usage_days_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("tenant_id", "day", "key_id", "base", "adapter_id", "kind", name=op.f("pk_usage_days")),
    )
    op.create_table(
        "usage_segments",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("gone_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_segments")),
    )
    op.create_index(op.f("ix_usage_segments_gone_at"), "usage_segments", ["gone_at"])
    op.create_table(
        "metered_jobs",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_metered_jobs_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_metered_jobs")),
    )
    op.create_index(op.f("ix_metered_jobs_tenant_id"), "metered_jobs", ["tenant_id"])


def downgrade() -> None:
    for table in ("metered_jobs", "usage_segments", "usage_days"):
        op.drop_table(table)
