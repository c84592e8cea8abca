"""Scopes `train` and `generate`; keys that expire, and say when they were used and by which secret they are hashed;
tenants that are suspended; signing secrets that outlive a server secret.

Who could read could generate, and who could write could train: nobody loses anything.
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_keys = sa.table("api_keys", sa.column("id", sa.String), sa.column("scopes", sa.JSON))


def upgrade() -> None:
    op.add_column("tenants", sa.Column("suspended_at", sa.BigInteger))
    for column in (
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("secret_id", sa.String(16)),
        sa.Column("created_by", sa.String(40)),
    ):
        op.add_column("api_keys", column)
    with op.batch_alter_table("webhook_endpoints") as endpoints:
        endpoints.alter_column("salt", existing_type=sa.String(64), type_=sa.String(160), existing_nullable=False)
    _rewrite(_of_now)


def downgrade() -> None:
    _rewrite(_of_before)
    # A secret that was sealed anew has no place in the schema of before: its endpoint gets another.
    op.execute("UPDATE webhook_endpoints SET salt = substr(salt, 18, 64) WHERE length(salt) > 64")
    with op.batch_alter_table("webhook_endpoints") as endpoints:
        endpoints.alter_column("salt", existing_type=sa.String(160), type_=sa.String(64), existing_nullable=False)
    with op.batch_alter_table("api_keys") as keys:
        for column in ("created_by", "secret_id", "last_used_at", "expires_at"):
            keys.drop_column(column)
    with op.batch_alter_table("tenants") as tenants:
        tenants.drop_column("suspended_at")


def _of_now(scopes: set[str]) -> set[str]:
    renamed = {"train" if scope == "write" else scope for scope in scopes}
    return renamed | {"generate"} if "read" in scopes else renamed


def _of_before(scopes: set[str]) -> set[str]:
    return {"write" if scope == "train" else scope for scope in scopes} - {"generate"}


def _rewrite(changed: Callable[[set[str]], set[str]]) -> None:
    connection = op.get_bind()
    for key in connection.execute(sa.select(_keys)).all():
        scopes = sorted(changed(set(key.scopes)))
        if scopes != key.scopes:
            connection.execute(_keys.update().where(_keys.c.id == key.id).values(scopes=scopes))
