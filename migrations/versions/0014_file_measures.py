"""Files in the tokens of bases, and what they are compared with other files by."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "file_measures",
        sa.Column("file_id", sa.String(length=40), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("row_limit", sa.BigInteger(), nullable=False),
        sa.Column("base_fingerprint", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["file_id"], ["files.id"], name=op.f("fk_file_measures_file_id_files"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("file_id", "base", "row_limit", name=op.f("pk_file_measures")),
    )
    op.create_table(
        "file_sketches",
        sa.Column("file_id", sa.String(length=40), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["file_id"], ["files.id"], name=op.f("fk_file_sketches_file_id_files"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_file_sketches")),
    )


def downgrade() -> None:
    op.drop_table("file_sketches")
    op.drop_table("file_measures")
