"""Limits of a tenant or of a key in place of the installation's."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "limit_overrides",
        sa.Column("owner_id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_limit_overrides_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("pk_limit_overrides")),
    )
    op.create_index(op.f("ix_limit_overrides_tenant_id"), "limit_overrides", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("limit_overrides")
