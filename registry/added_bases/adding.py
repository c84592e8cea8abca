"""An operator's side of added bases: add, list, remove."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from osora_common.base_lookup import local_facts, resolve
from osora_common.base_source import PACKAGES, check_name, check_source, is_made_here, kind_of
from osora_common.unusable_base import UnusableBaseError
from registry import audit
from registry.added_bases.tables import AddedBase
from registry.db import take_turns
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.ids import may_be_ours, new_id
from registry.models import TERMINAL, Adapter, Checkpoint, Job
from registry.names.tables import Alias, AliasTarget
from registry.settings import Settings
from registry.tenants import Principal


@dataclass(frozen=True)
class Dependents:
    """What of all tenants hangs on a base. None of it can be used while there is no such base; none of it is deleted
    with the base."""

    adapters: int
    """Trained here."""
    imported: int
    checkpoints: int
    aliases: int

    def __bool__(self) -> bool:
        return any((self.adapters, self.imported, self.checkpoints, self.aliases))

    def __str__(self) -> str:
        counts = {"adapter": self.adapters, "imported adapter": self.imported, "checkpoint": self.checkpoints}
        said = [f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items() if count]
        if self.aliases:
            said.append(f"{self.aliases} {'alias' if self.aliases == 1 else 'aliases'}")
        return ", ".join(said)


def everything(session: Session) -> Sequence[AddedBase]:
    """All, in whatever state, the oldest first."""
    return session.scalars(select(AddedBase).order_by(AddedBase.created_at, AddedBase.name)).all()


def get(session: Session, name: str) -> AddedBase:
    """Raises `NotFound`."""
    found = session.get(AddedBase, name)
    if found is None:
        raise NotFound(f"no base {name!r}", code="base_not_found", next_action="list the bases for their names")
    return found


def add(session: Session, principal: Principal, settings: Settings, name: str, source: str | None) -> AddedBase:
    """A new base, waiting for a worker to prepare it. One that has failed is taken up anew, from this source.

    Raises `InvalidRequest` for a name or a source that no base can have, or a base that is seen from here to be
    unusable, and `Conflict` where there is one of this name, or something else is called so.
    """
    principal.require("operator")
    source = name if source is None else source
    _check(name, source)
    take_turns(session, f"base {name}")
    there = session.get(AddedBase, name)
    if name in settings.base_paths or (there is not None and there.state != "failed"):
        state = "is in OSORA_BASES" if there is None else f"was added (state: {there.state})"
        raise Conflict(
            f"there is a base {name!r} already: it {state}",
            code="base_exists",
            next_action="give this one another name, or remove that one first",
        )
    _refuse_taken(session, name)
    if there is not None:
        session.delete(there)
        session.flush()
    base = AddedBase(name=name, id=new_id("base-"), source=source, content=_known_content(source))
    session.add(base)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(f"there is a base {name!r} already", code="base_exists") from error
    audit.record(session, principal, "base.added", "base", name, source_kind=kind_of(source))
    return base


def remove(
    session: Session, principal: Principal, settings: Settings, name: str, *, leave_adapters: bool
) -> Dependents:
    """Takes a base off the service; what of tenants' hangs on it is kept, and returned in numbers.

    Raises `NotFound`, and `Conflict` for one of OSORA_BASES, while a job that has not ended needs it, and, without
    `leave_adapters`, where anything hangs on it.
    """
    principal.require("operator")
    base = session.scalars(
        select(AddedBase).where(AddedBase.name == name).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()
    if base is None and name in settings.base_paths:
        raise Conflict(
            f"the base {name!r} is in OSORA_BASES",
            code="base_configured",
            next_action="take it out of OSORA_BASES and start the service again",
        )
    base = get(session, name) if base is None else base
    live = select(Job.status, func.count()).where(Job.base == name, Job.status.not_in(TERMINAL)).group_by(Job.status)
    if jobs := session.execute(live).all():
        counts = ", ".join(f"{count} {status}" for status, count in sorted(jobs))
        raise Conflict(
            f"jobs that have not ended need the base {name!r}: {counts}",
            code="base_in_use",
            next_action="wait for them or have them cancelled, then remove it",
        )
    hanging = dependents(session, name)
    if hanging and not leave_adapters:
        raise Conflict(
            f"on the base {name!r} hang {hanging}, which nobody can call without it",
            code="base_in_use",
            next_action="remove it with `leave_adapters` (osora bases remove NAME --leave-adapters): they are kept, "
            "and work again when the same base is added under the same name",
        )
    session.delete(base)
    session.flush()
    audit.record(session, principal, "base.removed", "base", name, adapters=hanging.adapters + hanging.imported)
    return hanging


def dependents(session: Session, name: str) -> Dependents:
    """What hangs on a base."""
    of_job = select(func.count()).select_from(Adapter).where(Adapter.base == name)
    checkpoints = select(func.count()).select_from(Checkpoint).join(Job, Job.id == Checkpoint.job_id)
    return Dependents(
        adapters=session.scalars(of_job.where(Adapter.job_id.is_not(None))).one(),
        imported=session.scalars(of_job.where(Adapter.job_id.is_(None))).one(),
        checkpoints=session.scalars(checkpoints.where(Job.base == name)).one(),
        aliases=session.scalars(
            select(func.count()).select_from(AliasTarget).where(AliasTarget.target == name, AliasTarget.name == name)
        ).one(),
    )


def _check(name: str, source: str) -> None:
    param = "name"
    try:
        check_name(name)
        param = "source"
        check_source(source)
        if kind_of(source) == "bundled":
            _require_known(source)
        elif not is_made_here(source):
            local_facts(source)
    except UnusableBaseError as error:
        raise InvalidRequest(error.message, param=param, code="base_unusable", next_action=error.next_action) from error


def _require_known(source: str) -> None:
    """Raises UnusableBaseError for a bare word that is no base of ours."""
    try:
        resolve(source)
    except UnusableBaseError as error:
        raise UnusableBaseError(
            f"{error.message}, and no base that comes as a package ({', '.join(PACKAGES)})",
            "name one of those, a path from / on of a directory or a .gguf file, or owner/name on a model hub",
        ) from error


def _refuse_taken(session: Session, name: str) -> None:
    """An alias of this name would stop meaning what it means."""
    count = session.scalars(select(func.count()).select_from(Alias).where(Alias.name == name)).one()
    if count or may_be_ours(name):
        taken = (
            f"{count} {'alias of a tenant is' if count == 1 else 'aliases of tenants are'}" if count else "a model is"
        )
        raise Conflict(f"{taken} called {name!r}", code="name_taken", next_action="give the base another name")


def _known_content(source: str) -> str | None:
    package = PACKAGES.get(source)
    return None if package is None else package.sha256
