"""Tenants and their API keys.

A key has scopes: `read` and `write` for its tenant's data, `admin` for its tenant's keys as well, and `operator` for
the whole installation: other tenants and their keys.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Select, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry import audit
from registry.db import now_seconds
from registry.errors import Forbidden, InvalidRequest, NotFound, Unauthorized
from registry.ids import new_id
from registry.models import ApiKey, Tenant

Scope = Literal["read", "write", "admin", "operator"]
ALL_SCOPES: tuple[Scope, ...] = get_args(Scope)
_INCLUDED_IN: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read", "admin", "operator"}),
    "write": frozenset({"write", "admin", "operator"}),
    "admin": frozenset({"admin", "operator"}),
    "operator": frozenset({"operator"}),
}
DEFAULT_TENANT = "default"

# A tenant's name is a part of its models' names, between colons.
_TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Principal:
    """Who is asking: every query of tenant data starts from one."""

    tenant_id: str
    tenant_name: str
    key_id: str
    scopes: frozenset[str]

    def has(self, scope: Scope) -> bool:
        """Whether the key has the scope, or one that includes it."""
        return not _INCLUDED_IN[scope].isdisjoint(self.scopes)

    def require(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the key has the scope: `operator` includes `admin`, and that `read` and `write`."""
        if not self.has(scope):
            raise Forbidden(
                f"this takes the scope {scope!r}, and the key has {', '.join(sorted(self.scopes))}",
                next_action=f"use a key that was created with the scope {scope!r}",
            )


def ensure_tenant(session: Session, name: str = DEFAULT_TENANT) -> Tenant:
    """The tenant of that name, created if need be. Raises `InvalidRequest` for a name that cannot be one."""
    if not _TENANT_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not a tenant name",
            param="tenant",
            next_action="use 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit",
        )
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    row = {"id": new_id("tenant-"), "name": name}
    session.execute(dialect.insert(Tenant).values(row).on_conflict_do_nothing(index_elements=["name"]))
    return session.scalars(select(Tenant).where(Tenant.name == name)).one()


def name_of(session: Session, tenant_id: str) -> str:
    """The name of a tenant that is there."""
    return session.get_one(Tenant, tenant_id).name


def create_key(session: Session, tenant_name: str, name: str, scopes: Iterable[str]) -> tuple[ApiKey, str]:
    """A new key of a tenant (created if need be): its row, and the plaintext, which only exists here.

    Asks nobody's leave: what a client wants goes through `grant_key`.
    """
    wanted = sorted(set(scopes))
    if not wanted or not set(wanted) <= set(ALL_SCOPES):
        raise InvalidRequest(
            f"{wanted} are not scopes of a key",
            param="scopes",
            next_action=f"choose some of {list(ALL_SCOPES)}",
        )
    tenant = ensure_tenant(session, tenant_name)
    plaintext = "osk-" + secrets.token_urlsafe(32)
    key = ApiKey(
        id=new_id("key-"),
        tenant_id=tenant.id,
        name=name,
        digest=_digest(session, plaintext),
        hint=plaintext[-4:],
        scopes=wanted,
    )
    session.add(key)
    session.flush()
    return key, plaintext


def grant_key(
    session: Session, principal: Principal, name: str, scopes: Collection[str], tenant_name: str | None = None
) -> tuple[ApiKey, str]:
    """`create_key` on behalf of a principal, for its own tenant unless another is named.

    Raises:
        Forbidden: only an operator makes keys for other tenants, and keys that are an operator's.
    """
    principal.require("admin")
    if tenant_name not in (None, principal.tenant_name) or "operator" in scopes:
        principal.require("operator")
    key, plaintext = create_key(session, tenant_name or principal.tenant_name, name, scopes)
    audit.record(session, principal, "key.created", "key", key.id, owner_id=key.tenant_id, scopes=key.scopes)
    return key, plaintext


def authenticate(session: Session, plaintext: str) -> Principal:
    """The principal whose key this is. Raises `Unauthorized`, without the key in the message."""
    found = session.execute(
        select(ApiKey, Tenant.name)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(ApiKey.digest == _digest(session, plaintext), ApiKey.revoked_at.is_(None))
    ).one_or_none()
    if found is None:
        raise Unauthorized(
            "this API key is unknown or revoked",
            next_action="send `Authorization: Bearer osk-…` with a valid key",
        )
    key, tenant_name = found
    return Principal(key.tenant_id, tenant_name, key.id, frozenset(key.scopes))


def list_keys(session: Session, principal: Principal, tenant_name: str | None = None) -> Sequence[tuple[ApiKey, str]]:
    """Keys and the names of their tenants, revoked ones too, newest first.

    An operator sees those of every tenant, or of the one that is named; anybody else those of its own.

    Raises:
        Forbidden: another tenant was named by somebody who is no operator.
    """
    if tenant_name not in (None, principal.tenant_name):
        principal.require("operator")
    statement = _manageable(principal).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
    if tenant_name is not None:
        statement = statement.where(Tenant.name == tenant_name)
    return [(row[0], row[1]) for row in session.execute(statement)]


def revoke_key(session: Session, principal: Principal, key_id: str) -> ApiKey:
    """Ends a key at once: an operator's choice of any, else one of the principal's tenant. Revoking twice is fine.

    Raises:
        NotFound: there is no such key, or it is another tenant's.
        Forbidden: it is an operator's key, and the principal is none.
    """
    found = session.execute(_manageable(principal).where(ApiKey.id == key_id).with_for_update(of=ApiKey)).one_or_none()
    if found is None:
        raise NotFound(f"no API key {key_id!r}", param="key_id", next_action="list the keys for their ids")
    key, _ = found
    if "operator" in key.scopes:
        principal.require("operator")
    if key.revoked_at is None:
        key.revoked_at = now_seconds()
        audit.record(session, principal, "key.revoked", "key", key.id, owner_id=key.tenant_id)
    return key


def _manageable(principal: Principal) -> Select[ApiKey, str]:
    keys = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id)
    return keys if principal.has("operator") else keys.where(ApiKey.tenant_id == principal.tenant_id)


def _digest(session: Session, plaintext: str) -> str:
    pepper: bytes = session.info["key_pepper"]
    return hmac.new(pepper, plaintext.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
