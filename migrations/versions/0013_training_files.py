"""Files of plain text, and what the check of a file has found."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("files") as files:
        files.add_column(sa.Column("report", sa.JSON(none_as_null=True), nullable=True))
        files.create_check_constraint(op.f("ck_files_format"), "format IN ('chat', 'completion', 'preference', 'text')")


def downgrade() -> None:
    with op.batch_alter_table("files") as files:
        files.drop_constraint(op.f("ck_files_format"), type_="check")
        files.drop_column("report")
