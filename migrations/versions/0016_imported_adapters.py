"""Adapters without a job: those that a tenant brought, plain LoRAs among them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("adapters") as adapters:
        adapters.add_column(sa.Column("type", sa.String(length=10), nullable=False, server_default="osora"))
        adapters.alter_column("job_id", existing_type=sa.String(length=40), nullable=True)
        adapters.alter_column("basis_fingerprint", existing_type=sa.String(), nullable=True)
        adapters.create_check_constraint(op.f("ck_adapters_type"), "type IN ('osora', 'lora')")
        adapters.create_check_constraint(op.f("ck_adapters_basis"), "type = 'lora' OR basis_fingerprint IS NOT NULL")
        adapters.create_check_constraint(op.f("ck_adapters_origin"), "type = 'osora' OR job_id IS NULL")


def downgrade() -> None:
    # What was brought has no place in the schema of before.
    op.execute("DELETE FROM alias_targets WHERE target IN (SELECT id FROM adapters WHERE job_id IS NULL)")
    op.execute("DELETE FROM permissions WHERE target IN (SELECT id FROM adapters WHERE job_id IS NULL)")
    op.execute("DELETE FROM adapters WHERE job_id IS NULL")
    with op.batch_alter_table("adapters") as adapters:
        for name in ("origin", "basis", "type"):
            adapters.drop_constraint(op.f(f"ck_adapters_{name}"), type_="check")
        adapters.alter_column("basis_fingerprint", existing_type=sa.String(), nullable=False)
        adapters.alter_column("job_id", existing_type=sa.String(length=40), nullable=False)
        adapters.drop_column("type")
