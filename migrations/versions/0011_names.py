"""Aliases with their history, and permissions to call another tenant's models."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_aliases")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_aliases_tenant_id_tenants")),
    )
    op.create_index(op.f("ix_aliases_tenant_id_created_at_name"), "aliases", ["tenant_id", "created_at", "name"])
    op.create_table(
        "alias_targets",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "alias", "position", name=op.f("pk_alias_targets")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "alias"],
            ["aliases.tenant_id", "aliases.name"],
            name=op.f("fk_alias_targets_tenant_id_aliases"),
        ),
    )
    op.create_index(op.f("ix_alias_targets_target"), "alias_targets", ["target"])
    op.create_table(
        "alias_versions",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("targets", sa.JSON(), nullable=False),
        sa.Column("restored", sa.BigInteger(), nullable=True),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "alias", "version", name=op.f("pk_alias_versions")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_alias_versions_tenant_id_tenants")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_alias_versions_key_id_api_keys")),
    )
    op.create_index(op.f("ix_alias_versions_created_at"), "alias_versions", ["created_at"])
    op.create_table(
        "permissions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("target", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_permissions")),
        sa.UniqueConstraint("target", "project_id", name=op.f("uq_permissions_target_project_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_permissions_tenant_id_tenants")),
        sa.ForeignKeyConstraint(["project_id"], ["tenants.id"], name=op.f("fk_permissions_project_id_tenants")),
    )
    op.create_index(op.f("ix_permissions_project_id"), "permissions", ["project_id"])


def downgrade() -> None:
    for table in ("permissions", "alias_versions", "alias_targets", "aliases"):
        op.drop_table(table)
