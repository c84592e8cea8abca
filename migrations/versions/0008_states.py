"""A column that holds one of a few words refuses any other."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_WORDS = {
    "jobs": {
        "status": ("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"),
        "signal": ("cancel", "pause"),
        "method": ("supervised", "dpo"),
        "priority": ("low", "normal", "high"),
    },
    "job_attempts": {"outcome": ("succeeded", "failed", "cancelled", "paused", "released", "lost")},
    "job_events": {"level": ("info", "warn", "error"), "type": ("message", "metrics")},
}


def upgrade() -> None:
    for table, columns in _WORDS.items():
        with op.batch_alter_table(table) as altered:
            for column, words in columns.items():
                listed = ", ".join(f"'{word}'" for word in words)
                altered.create_check_constraint(op.f(f"ck_{table}_{column}"), f"{column} IN ({listed})")


def downgrade() -> None:
    for table, columns in _WORDS.items():
        with op.batch_alter_table(table) as altered:
            for column in columns:
                altered.drop_constraint(op.f(f"ck_{table}_{column}"), type_="check")
