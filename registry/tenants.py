"""Tenants and their API keys.

A key has scopes: `read`, `train` and `generate` for its tenant's data and models, `admin` for all that and its tenant's
keys, and `operator` for the whole installation: other tenants and their keys.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Select, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry import audit, server_secrets
from registry.db import now_seconds
from registry.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unauthorized
from registry.ids import new_id
from registry.key_text import may_be_key, new_key
from registry.key_uses import KeyUses, Rehash
from registry.models import ApiKey, Tenant
from registry.paging import Order, Page, fetch_page

Scope = Literal["read", "train", "generate", "admin", "operator"]
ALL_SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("read", "train", "generate")
_INCLUDED_IN: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read", "admin", "operator"}),
    "train": frozenset({"train", "admin", "operator"}),
    "generate": frozenset({"generate", "admin", "operator"}),
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
    expires_at: int | None = None
    """When the key ends, if it does."""

    def has(self, scope: Scope) -> bool:
        """Whether the key has the scope, or one that includes it."""
        return not _INCLUDED_IN[scope].isdisjoint(self.scopes)

    def require(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the key has the scope: `operator` includes `admin`, and that all others."""
        if not self.has(scope):
            raise Forbidden(
                f"this takes the scope {scope!r}, and the key has {', '.join(sorted(self.scopes))}",
                next_action=f"use a key that was created with the scope {scope!r}",
            )


def ensure_tenant(session: Session, name: str = DEFAULT_TENANT) -> Tenant:
    """The tenant of that name, created if need be. Raises `InvalidRequest` for a name that cannot be one."""
    _check_name(name, "tenant")
    _insert(session, name)
    return session.scalars(select(Tenant).where(Tenant.name == name)).one()


def create_tenant(session: Session, principal: Principal, name: str) -> Tenant:
    """A new tenant, which an operator makes.

    Raises:
        InvalidRequest: it is no name for a tenant. Conflict: there is one of that name. Forbidden.
    """
    principal.require("operator")
    _check_name(name, "name")
    if name.startswith("tenant-"):
        raise InvalidRequest(
            f"{name!r} could be a tenant's id, which begins with 'tenant-'",
            param="name",
            next_action="choose another name",
        )
    if not _insert(session, name):
        raise Conflict(
            f"there is a tenant {name!r} already",
            param="name",
            code="tenant_exists",
            next_action="use it, or choose another name",
        )
    tenant = session.scalars(select(Tenant).where(Tenant.name == name)).one()
    audit.record(session, principal, "tenant.created", "tenant", tenant.id, owner_id=tenant.id, name=name)
    return tenant


def get_tenant(session: Session, principal: Principal, id_or_name: str, *, param: str = "tenant") -> Tenant:
    """Any tenant, for an operator. Raises `NotFound`, naming the request field `param`, and `Forbidden`."""
    principal.require("operator")
    found = session.scalars(
        select(Tenant)
        .where(or_(Tenant.id == id_or_name, Tenant.name == id_or_name))
        .order_by((Tenant.id == id_or_name).desc())
    ).first()
    if found is None:
        raise tenant_not_found(id_or_name, param=param)
    return found


def list_tenants(
    session: Session, principal: Principal, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> Page[Tenant]:
    """A page of all tenants. Raises `Forbidden`, and `NotFound` for a bad `after`."""
    principal.require("operator")
    start = None if after is None else get_tenant(session, principal, after, param="after")
    position = None if start is None else (start.created_at, start.id)
    return fetch_page(session, select(Tenant), (Tenant.created_at, Tenant.id), after=position, limit=limit, order=order)


def name_of(session: Session, tenant_id: str) -> str:
    """The name of a tenant that is there."""
    return session.get_one(Tenant, tenant_id).name


def create_key(
    session: Session,
    tenant_name: str,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: int | None = None,
    created_by: str | None = None,
) -> tuple[ApiKey, str]:
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
    plaintext = new_key()
    secret_id, digest = server_secrets.of_session(session).digests(plaintext)[0]
    key = ApiKey(
        id=new_id("key-"),
        tenant_id=tenant.id,
        name=name,
        digest=digest,
        secret_id=secret_id,
        hint=plaintext[-4:],
        scopes=wanted,
        expires_at=expires_at,
        created_by=created_by,
    )
    session.add(key)
    session.flush()
    return key, plaintext


def grant_key(
    session: Session,
    principal: Principal,
    name: str,
    scopes: Collection[str],
    tenant_name: str | None = None,
    lifetime_seconds: int | None = None,
) -> tuple[ApiKey, str]:
    """`create_key` on behalf of a principal, for its own tenant unless another is named, which must be there.

    No key lasts longer than the one that it is made with: without a lifetime it ends with that.

    Raises:
        Forbidden: only an operator makes keys for other tenants, and keys that are an operator's; or it would last
            longer than the principal's own.
        NotFound: no such tenant.
    """
    principal.require("admin")
    if tenant_name not in (None, principal.tenant_name) or "operator" in scopes:
        principal.require("operator")
    tenant = principal.tenant_name
    if tenant_name is not None and tenant_name != tenant:
        tenant = get_tenant(session, principal, tenant_name).name
    expires_at = principal.expires_at
    if lifetime_seconds is not None:
        expires_at = session.scalars(select(now_seconds())).one() + lifetime_seconds
    if principal.expires_at is not None and expires_at is not None and expires_at > principal.expires_at:
        raise Forbidden(
            "a key cannot last longer than the one that it is made with",
            param="expires_in",
            code="outlives_its_maker",
            next_action="ask for less time, or make it with a key that lasts longer",
        )
    key, plaintext = create_key(session, tenant, name, scopes, expires_at=expires_at, created_by=principal.key_id)
    audit.record(session, principal, "key.created", "key", key.id, owner_id=key.tenant_id, scopes=key.scopes)
    return key, plaintext


def authenticate(session: Session, plaintext: str) -> Principal:
    """The principal whose key this is. What cannot be a key is refused without a look into the database.

    Raises:
        Unauthorized: it is no key, or one that was revoked or has expired; without the key in the message.
        Forbidden: its tenant is suspended.
    """
    if not may_be_key(plaintext):
        raise _unknown()
    digests = server_secrets.of_session(session).digests(plaintext)
    found = session.execute(
        select(ApiKey, Tenant, now_seconds())
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(ApiKey.digest.in_(digest for _, digest in digests), ApiKey.revoked_at.is_(None))
    ).one_or_none()
    if found is None:
        raise _unknown()
    key, tenant, at = found
    if key.expires_at is not None and key.expires_at <= at:
        raise Unauthorized(
            "this API key has expired",
            code="expired_api_key",
            next_action="ask whoever gave it to you for another",
        )
    if tenant.suspended_at is not None:
        raise Forbidden(
            f"the tenant {tenant.name!r} is suspended: none of its keys works, and its jobs wait",
            code="tenant_suspended",
            next_action="ask whoever runs the service to resume it",
        )
    uses: KeyUses | None = session.info.get("key_uses")
    if uses is not None:
        current_id, digest = digests[0]
        uses.note(key, at, None if key.secret_id == current_id else Rehash(key.digest, digest, current_id))
    return Principal(key.tenant_id, tenant.name, key.id, frozenset(key.scopes), key.expires_at)


def ended(session: Session, key_ids: Collection[str]) -> set[str]:
    """Those of the keys that are no good any more: revoked, expired, gone, or their tenant is suspended."""
    good = (
        select(ApiKey.id)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(
            ApiKey.id.in_(key_ids),
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now_seconds()),
            Tenant.suspended_at.is_(None),
        )
    )
    return set(key_ids) - set(session.scalars(good))


def list_keys(
    session: Session,
    principal: Principal,
    tenant_name: str | None = None,
    *,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> tuple[Page[ApiKey], Mapping[str, str]]:
    """A page of keys, revoked ones too, and the names of their tenants by id.

    An operator sees those of every tenant, or of the one that is named; anybody else those of its own.

    Raises:
        Forbidden: another tenant was named by somebody who is no operator.
        NotFound: no such tenant, or no such key as `after`.
    """
    keys = _manageable(principal)
    if tenant_name is not None and tenant_name != principal.tenant_name:
        keys = keys.where(ApiKey.tenant_id == get_tenant(session, principal, tenant_name).id)
    elif tenant_name is not None:
        keys = keys.where(ApiKey.tenant_id == principal.tenant_id)
    start = None if after is None else session.scalars(keys.where(ApiKey.id == after)).one_or_none()
    if after is not None and start is None:
        raise _key_not_found(after, "after")
    position = None if start is None else (start.created_at, start.id)
    page = fetch_page(session, keys, (ApiKey.created_at, ApiKey.id), after=position, limit=limit, order=order)
    names = select(Tenant.id, Tenant.name).where(Tenant.id.in_({key.tenant_id for key in page.data}))
    return page, {row.id: row.name for row in session.execute(names)}


def get_key(session: Session, principal: Principal, key_id: str) -> ApiKey:
    """A key that the principal manages: of its own tenant, for an operator any. Raises `NotFound`."""
    key = session.scalars(_manageable(principal).where(ApiKey.id == key_id)).one_or_none()
    if key is None:
        raise _key_not_found(key_id, "key_id")
    return key


def current_key(session: Session, principal: Principal) -> ApiKey:
    """The key that the principal asks with."""
    return session.scalars(select(ApiKey).where(ApiKey.id == principal.key_id)).one()


def revoke_key(session: Session, principal: Principal, key_id: str) -> ApiKey:
    """Ends a key: an operator's choice of any, else one of the principal's tenant. Revoking twice is fine.

    Raises:
        NotFound: there is no such key, or it is another tenant's.
        Forbidden: it is an operator's key, and the principal is none.
    """
    key = session.scalars(_manageable(principal).where(ApiKey.id == key_id).with_for_update(of=ApiKey)).one_or_none()
    if key is None:
        raise _key_not_found(key_id, "key_id")
    if "operator" in key.scopes:
        principal.require("operator")
    if key.revoked_at is None:
        key.revoked_at = now_seconds()
        audit.record(session, principal, "key.revoked", "key", key.id, owner_id=key.tenant_id)
    return key


def _manageable(principal: Principal) -> Select[ApiKey]:
    keys = select(ApiKey)
    return keys if principal.has("operator") else keys.where(ApiKey.tenant_id == principal.tenant_id)


def _key_not_found(key_id: str, param: str) -> NotFound:
    return NotFound(
        f"no API key {key_id!r}", param=param, code="key_not_found", next_action="list the keys for their ids"
    )


def tenant_not_found(id_or_name: str, *, param: str = "tenant") -> NotFound:
    """What is said of a tenant that is not there, or not for whoever asks."""
    return NotFound(
        f"no tenant {id_or_name!r}",
        param=param,
        code="tenant_not_found",
        next_action="list the tenants for their names, or create it first",
    )


def _unknown() -> Unauthorized:
    return Unauthorized(
        "this API key is unknown or revoked",
        next_action="send `Authorization: Bearer osk-…` with a valid key",
    )


def _check_name(name: str, param: str) -> None:
    if not _TENANT_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not a tenant name",
            param=param,
            next_action="use 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit",
        )


def _insert(session: Session, name: str) -> bool:
    """Whether there was no tenant of that name."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    row = {"id": new_id("tenant-"), "name": name}
    insert = dialect.insert(Tenant).values(row).on_conflict_do_nothing(index_elements=["name"])
    return session.execute(insert.returning(Tenant.id)).first() is not None
