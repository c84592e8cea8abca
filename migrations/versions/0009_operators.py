"""The scope `operator`: what `admin` could do besides, for other tenants' keys, is named for what it is.

Admin keys of the tenant `default`, where `registry init` puts the operator's own, become operators' keys and can do all
that they could. Those of other tenants manage their own tenant's keys from now on; each is named in the log, and an
operator can make an operator's key for whoever needs one.
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

logger = logging.getLogger("alembic.runtime.migration")

_tenants = sa.table("tenants", sa.column("id", sa.String), sa.column("name", sa.String))
_keys = sa.table(
    "api_keys",
    sa.column("id", sa.String),
    sa.column("tenant_id", sa.String),
    sa.column("name", sa.String),
    sa.column("scopes", sa.JSON),
    sa.column("revoked_at", sa.BigInteger),
)


def upgrade() -> None:
    connection = op.get_bind()
    keys = sa.select(_keys, _tenants.c.name.label("tenant")).join(_tenants, _tenants.c.id == _keys.c.tenant_id)
    for key in connection.execute(keys).all():
        if "admin" not in key.scopes:
            continue
        if key.tenant == "default":
            _set_scopes(key.id, [*key.scopes, "operator"])
        elif key.revoked_at is None:
            logger.warning(
                "API key %s (%r of the tenant %s) has the scope admin: it manages the keys of its own tenant now, and "
                "no longer those of others. To let it, make it a new key with the scope operator.",
                key.id,
                key.name,
                key.tenant,
            )


def downgrade() -> None:
    for key in op.get_bind().execute(sa.select(_keys)).all():
        if "operator" in key.scopes:
            _set_scopes(key.id, sorted({*key.scopes, "admin"} - {"operator"}))


def _set_scopes(key_id: str, scopes: list[str]) -> None:
    op.get_bind().execute(_keys.update().where(_keys.c.id == key_id).values(scopes=scopes))
