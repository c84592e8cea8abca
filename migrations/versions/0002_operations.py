"""What operators ask about: workers, the cost and the reason of each attempt, the age of stored objects."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_POINTING_AT_OBJECTS = ("files", "checkpoints", "adapters")


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("bases", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    with op.batch_alter_table("job_attempts") as attempts:
        attempts.add_column(sa.Column("last_step", sa.BigInteger(), nullable=False, server_default="0"))
        attempts.add_column(sa.Column("compute_seconds", sa.Double(), nullable=False, server_default="0"))
        attempts.add_column(sa.Column("reason", sa.String(), nullable=True))
    # Objects of before count as new when this runs, so that no sweep takes them for forgotten ones.
    created_at = sa.Column("created_at", sa.BigInteger(), nullable=False, server_default="0")
    if op.get_bind().dialect.name == "sqlite":
        # SQLite reads a row's columns in order: after the data, a listing would have to read all objects.
        with op.batch_alter_table("blobs", recreate="always") as blobs:
            blobs.add_column(created_at, insert_before="data")
        now = "strftime('%s', 'now')"
    else:
        op.add_column("blobs", created_at)
        now = "extract(epoch from now())::bigint"
    op.execute(f"UPDATE blobs SET created_at = {now}")
    for table in _POINTING_AT_OBJECTS:
        op.create_index(op.f(f"ix_{table}_object_key"), table, ["object_key"])


def downgrade() -> None:
    for table in _POINTING_AT_OBJECTS:
        op.drop_index(op.f(f"ix_{table}_object_key"), table)
    with op.batch_alter_table("blobs") as blobs:
        blobs.drop_column("created_at")
    with op.batch_alter_table("job_attempts") as attempts:
        for name in ("reason", "compute_seconds", "last_step"):
            attempts.drop_column(name)
    op.drop_table("workers")
