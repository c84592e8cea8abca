"""Aliases: a tenant's own names for models, which can be moved, split between several, and rolled back.

Every change makes a version, and the newest versions are kept with who made them, also of an alias that was deleted: a
roll-back brings that one back too.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, delete, func, select
from sqlalchemy.orm import Session

from registry import audit, webhooks
from registry.db import now, now_seconds, take_turns
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.models import ApiKey
from registry.names.tables import Alias, AliasTarget, AliasVersion
from registry.paging import Order, Page, fetch_page
from registry.references import find, hold
from registry.tenants import Principal

MOST_TARGETS = 10
LARGEST_WEIGHT = 1_000_000
MOST_ALIASES = 1000
"""Of one tenant: GET /v1/models lists them all."""
VERSIONS_KEPT = 100
_DELETED_KEPT_DAYS = 90

_PART = r"[A-Za-z0-9][A-Za-z0-9._:@+-]*"
# Nor may one end like a path under an alias, an adapter or a checkpoint.
_NAME = re.compile(rf"(?!adp-|ftjob-|ftckpt_)(?!.*/(history|rollback|download|permissions|basis)$){_PART}(/{_PART})*")


@dataclass(frozen=True)
class Change:
    """A version of an alias, and the name of the key that made it."""

    version: AliasVersion
    key_name: str


def put(
    session: Session,
    principal: Principal,
    name: str,
    weights: Mapping[str, int],
    *,
    bases: Collection[str],
    expected_version: int | None = None,
) -> Alias:
    """Makes an alias of these models, by their names or ids, or moves it to them; if it is there, nothing changes.

    bases: those on offer. expected_version: what the alias must be at (0: it must not be there), if that matters.

    Raises:
        InvalidRequest: the name cannot be one, or the targets are too many, twice the same, or of such weights.
        NotFound: a target is no base, and no adapter or checkpoint of the tenant's.
        Conflict: a model has that name already, the alias is at another version, or there are too many.
    """
    _check_name(session, principal, name, bases)
    _take_turns(session, principal, name)
    alias = _read(session, principal, name)
    _check_version(name, alias, expected_version)
    return _change(session, principal, name, alias, weights, bases)


def rollback(
    session: Session,
    principal: Principal,
    name: str,
    *,
    bases: Collection[str],
    to: int | None = None,
    expected_version: int | None = None,
) -> Alias:
    """Brings back what an alias stood for in the version `to`, or before its last change; that makes a new version.

    Raises:
        NotFound: no such alias, or no such version of it.
        Conflict: the alias is at another version than expected, or what that version names is gone.
    """
    _take_turns(session, principal, name)
    alias = _read(session, principal, name)
    newest = _newest_version(session, principal, name)
    if newest == 0:
        raise _not_found(name)
    _check_version(name, alias, expected_version)
    wanted = newest - 1 if to is None else to
    past = session.get(AliasVersion, (principal.tenant_id, name, wanted))
    if past is None or not past.targets:
        raise NotFound(
            f"the alias {name!r} stood for nothing before this"
            if to is None
            else f"the alias {name!r} has no version {to} to go back to",
            param="version",
            code="alias_version_not_found",
            next_action="name another version: the alias's history lists those that are kept",
        )
    try:
        return _change(session, principal, name, alias, past.targets, bases, restored=wanted)
    except (NotFound, InvalidRequest) as error:  # gone, or gone and now the name of another alias
        raise Conflict(
            f"version {wanted} of the alias {name!r} cannot come back: {error.message}",
            code="alias_target_gone",
            next_action="name another version, or move the alias",
        ) from error


def get(session: Session, principal: Principal, name: str, *, param: str = "name") -> Alias:
    """An alias of the tenant's. Raises `NotFound`, naming the field `param`."""
    alias = _read(session, principal, name)
    if alias is None:
        raise _not_found(name, param)
    return alias


def exists(session: Session, principal: Principal, name: str) -> bool:
    """Whether the tenant has an alias of this name."""
    return _read(session, principal, name) is not None


def list(
    session: Session, principal: Principal, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> Page[Alias]:
    """A page of the tenant's aliases. Raises `NotFound` when `after` is none of them."""
    start = None if after is None else get(session, principal, after, param="after")
    position = None if start is None else (start.created_at, start.name)
    return fetch_page(session, _of(principal), (Alias.created_at, Alias.name), after=position, limit=limit, order=order)


def everything(session: Session, principal: Principal) -> Sequence[Alias]:
    """All of the tenant's aliases, by name."""
    return session.scalars(_of(principal).order_by(Alias.name)).all()


def history(session: Session, principal: Principal, name: str) -> Sequence[Change]:
    """The versions of an alias that are kept, newest first. Raises `NotFound` if it has none."""
    rows = session.execute(
        select(AliasVersion, ApiKey.name)
        .join(ApiKey, ApiKey.id == AliasVersion.key_id)
        .where(AliasVersion.tenant_id == principal.tenant_id, AliasVersion.alias == name)
        .order_by(AliasVersion.version.desc())
    ).all()
    if not rows:
        raise _not_found(name)
    return [Change(*row) for row in rows]


def remove(session: Session, principal: Principal, name: str) -> None:
    """Deletes an alias; what it stood for stays. Raises `NotFound`."""
    _take_turns(session, principal, name)
    alias = _read(session, principal, name)
    if alias is None:
        raise _not_found(name)
    session.delete(alias)
    _note(session, principal, name, alias.version + 1, {}, None)


def forget_deleted(session: Session) -> None:
    """Deletes the history of aliases that have been gone for a while."""
    gone = (
        select(AliasVersion.tenant_id, AliasVersion.alias)
        .outerjoin(Alias, and_(Alias.tenant_id == AliasVersion.tenant_id, Alias.name == AliasVersion.alias))
        .where(Alias.name.is_(None))
        .group_by(AliasVersion.tenant_id, AliasVersion.alias)
        .having(func.max(AliasVersion.created_at) < now() - _DELETED_KEPT_DAYS * 86400)
    )
    for tenant_id, name in session.execute(gone).all():
        session.execute(delete(AliasVersion).where(AliasVersion.tenant_id == tenant_id, AliasVersion.alias == name))


def _change(
    session: Session,
    principal: Principal,
    name: str,
    alias: Alias | None,
    weights: Mapping[str, int],
    bases: Collection[str],
    *,
    restored: int | None = None,
) -> Alias:
    targets = _targets(session, principal, weights, bases)
    if alias is not None and _shares(alias.targets) == _shares(targets):
        return alias
    version = _newest_version(session, principal, name) + 1
    if alias is None:
        _check_count(session, principal)
        alias = Alias(tenant_id=principal.tenant_id, name=name, version=version, targets=targets)
        session.add(alias)
    else:
        alias.targets.clear()
        session.flush()  # the new ones have the old ones' places
        alias.targets.extend(targets)
        alias.version = version
        alias.updated_at = now_seconds()
    _note(session, principal, name, version, {target.name: target.weight for target in targets}, restored)
    return alias


def _targets(
    session: Session, principal: Principal, weights: Mapping[str, int], bases: Collection[str]
) -> Sequence[AliasTarget]:
    if not 1 <= len(weights) <= MOST_TARGETS:
        raise InvalidRequest(
            f"an alias stands for 1 to {MOST_TARGETS} models, not {len(weights)}",
            param="targets",
            code="invalid_value",
        )
    targets: dict[str, AliasTarget] = {}
    for position, (given, weight) in enumerate(weights.items()):
        if not 1 <= weight <= LARGEST_WEIGHT:
            raise InvalidRequest(
                f"the weight of {given!r} is {weight}: it should be 1 to {LARGEST_WEIGHT}",
                param="targets",
                code="invalid_value",
                next_action="leave out what is to get no requests",
            )
        id, shown = (given, given) if given in bases else _held(session, principal, given, bases)
        if id in targets:
            raise InvalidRequest(
                f"{given!r} and {targets[id].name!r} are the same model",
                param="targets",
                code="invalid_value",
                next_action="name it once, with the sum of the weights",
            )
        targets[id] = AliasTarget(position=position, target=id, name=shown, weight=weight)
    return [*targets.values()]


def _shares(targets: Sequence[AliasTarget]) -> dict[str, int]:
    return {target.target: target.weight for target in targets}


def _held(session: Session, principal: Principal, given: str, bases: Collection[str]) -> tuple[str, str]:
    if exists(session, principal, given):
        raise InvalidRequest(
            f"{given!r} is an alias itself",
            param="targets",
            code="invalid_value",
            next_action="name what it stands for",
        )
    try:
        ref = hold(session, principal, given, param="targets")
    except NotFound as error:
        raise NotFound(
            f"{error.message}, and no base of that name",
            param="targets",
            code="model_not_found",
            next_action=f"name an adapter or a checkpoint of yours, or a base ({', '.join(bases)})",
        ) from error
    return ref.id, ref.name


def _check_name(session: Session, principal: Principal, name: str, bases: Collection[str]) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of an alias",
            param="name",
            code="invalid_value",
            next_action="use letters, digits and . _ : @ + - between slashes, each part beginning with a letter or "
            "digit; not like an id (adp-…, ftckpt_…, ftjob-…), and not ending like a route (/history and so on)",
        )
    taken = "base" if name in bases else "model" if find(session, principal, name, shared=True) else None
    if taken is not None:
        raise Conflict(
            f"{name!r} is the name of a {taken} already",
            param="name",
            code="alias_name_taken",
            next_action="choose another name: an alias never hides a model",
        )


def _check_version(name: str, alias: Alias | None, expected: int | None) -> None:
    version = 0 if alias is None else alias.version
    if expected in (None, version):
        return
    state = "is not there" if alias is None else f"is at version {version}"
    raise Conflict(
        f"the alias {name!r} {state}, and version {expected} was expected",
        param="expected_version",
        code="alias_moved",
        next_action="look at its history, and send the change again if it is still what you want",
    )


def _check_count(session: Session, principal: Principal) -> None:
    take_turns(session, f"new alias of {principal.tenant_id}")
    count = session.scalar(select(func.count()).select_from(Alias).where(Alias.tenant_id == principal.tenant_id)) or 0
    if count >= MOST_ALIASES:
        raise Conflict(
            f"there are {count} aliases already, and a tenant may have {MOST_ALIASES}",
            code="too_many_aliases",
            next_action="delete those that nobody calls",
        )


def _note(
    session: Session,
    principal: Principal,
    name: str,
    version: int,
    targets: dict[str, Any],
    restored: int | None,
) -> None:
    of_alias = (AliasVersion.tenant_id == principal.tenant_id, AliasVersion.alias == name)
    session.add(
        AliasVersion(
            tenant_id=principal.tenant_id,
            alias=name,
            version=version,
            targets=targets,
            restored=restored,
            key_id=principal.key_id,
        )
    )
    session.execute(delete(AliasVersion).where(*of_alias, AliasVersion.version <= version - VERSIONS_KEPT))
    session.flush()
    webhooks.record(session, principal.tenant_id, "alias.changed", {"id": name, "version": version})
    action: audit.Action = "alias.deleted" if not targets else "alias.set" if restored is None else "alias.rolled_back"
    audit.record(session, principal, action, "alias", name, version=version, restored=restored)


def _newest_version(session: Session, principal: Principal, name: str) -> int:
    newest = select(func.max(AliasVersion.version)).where(
        AliasVersion.tenant_id == principal.tenant_id, AliasVersion.alias == name
    )
    return session.scalar(newest) or 0


def _take_turns(session: Session, principal: Principal, name: str) -> None:
    take_turns(session, f"alias {principal.tenant_id} {name}")


def _read(session: Session, principal: Principal, name: str) -> Alias | None:
    return session.scalars(
        _of(principal).where(Alias.name == name).execution_options(populate_existing=True)
    ).one_or_none()


def _of(principal: Principal) -> Select[Alias]:
    return select(Alias).where(Alias.tenant_id == principal.tenant_id)


def _not_found(name: str, param: str = "name") -> NotFound:
    return NotFound(
        f"no alias {name!r}", param=param, code="alias_not_found", next_action="list the aliases for their names"
    )
