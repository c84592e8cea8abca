"""The audit log, which is only ever added to; tenants that are being deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# What a trimming has announced, in this very log, may go; an announcement stays for ever.
_MAY_GO = """OLD.trimmed_before IS NULL AND EXISTS (
    SELECT 1 FROM audit_log AS trimming WHERE trimming.trimmed_before > OLD.at
)"""

# REPLACE deletes a row without its trigger, so an id that is there is refused as well.
_SQLITE = {
    "audit_log_no_update": """BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    "audit_log_no_delete": f"""BEFORE DELETE ON audit_log WHEN NOT ({_MAY_GO})
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    "audit_log_no_replace": """BEFORE INSERT ON audit_log WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
}

_POSTGRESQL = {
    "audit_log_no_update": "BEFORE UPDATE ON audit_log FOR EACH ROW",
    "audit_log_no_delete": "BEFORE DELETE ON audit_log FOR EACH ROW",
    "audit_log_no_truncate": "BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT",
}

_FUNCTION = f"""CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND {_MAY_GO} THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only';
END
$$"""


def upgrade() -> None:
    op.add_column("tenants", sa.Column("erasing_since", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("erasure_lease", sa.Double(), nullable=True))
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=True),
        sa.Column("actor_tenant_id", sa.String(length=40), nullable=True),
        sa.Column("key_id", sa.String(length=40), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target_kind", sa.String(), nullable=False),
        sa.Column("target_id", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("facts", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("trimmed_before", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "trimmed_before IS NULL OR action = 'audit.trimmed'", name=op.f("ck_audit_log_trimmed_before")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_tenant_id_at_id"), "audit_log", ["tenant_id", "at", "id"])
    op.create_index(op.f("ix_audit_log_at_id"), "audit_log", ["at", "id"])
    op.create_index(op.f("ix_audit_log_target_id"), "audit_log", ["target_id"])
    op.create_index(op.f("ix_audit_log_trimmed_before"), "audit_log", ["trimmed_before"])
    if op.get_bind().dialect.name == "sqlite":
        for name, trigger in _SQLITE.items():
            op.execute(f"CREATE TRIGGER {name} {trigger}")
        return
    op.execute(_FUNCTION)
    for name, trigger in _POSTGRESQL.items():
        op.execute(f"CREATE TRIGGER {name} {trigger} EXECUTE FUNCTION audit_log_is_append_only()")


def downgrade() -> None:
    with op.batch_alter_table("tenants") as tenants:
        tenants.drop_column("erasure_lease")
        tenants.drop_column("erasing_since")
    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_is_append_only()")
