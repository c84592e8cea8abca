"""A job keeps the plan that "auto" became, and may leave several result files."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("plan", sa.JSON(none_as_null=True), nullable=True))
        jobs.add_column(sa.Column("result_file_ids", sa.JSON(none_as_null=True), nullable=False, server_default="[]"))
    array = "json_array" if op.get_bind().dialect.name == "sqlite" else "json_build_array"
    op.execute(f"UPDATE jobs SET result_file_ids = {array}(result_file_id) WHERE result_file_id IS NOT NULL")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("result_file_id")


def downgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("result_file_id", sa.String(length=40), nullable=True))
    op.execute("UPDATE jobs SET result_file_id = result_file_ids ->> 0")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("result_file_ids")
        jobs.drop_column("plan")
