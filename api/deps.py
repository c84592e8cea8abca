"""What routes ask for, as annotated types.

What takes no time is async: FastAPI sends all else through the threads that long work may fill.
"""

import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.middleware.request_id import address_of
from api.services import Services
from registry.context import Registry
from registry.errors import Unauthorized
from registry.tenants import Principal, Scope

_OF_PROXIES = ("x-forwarded-for", "forwarded", "via")

_api_key = HTTPBearer(auto_error=False, scheme_name="API key", description="A key that begins with `osk-`.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_api_key)]
_key_header = APIKeyHeader(name="x-api-key", auto_error=False, scheme_name="API key, as Anthropic's client sends it")
_KeyHeader = Annotated[str | None, Depends(_key_header)]


async def get_services(request: Request) -> Services:
    """What the app's lifespan opened."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_registry(services: ServicesDep) -> Registry:
    """The open registry."""
    return services.registry


RegistryDep = Annotated[Registry, Depends(get_registry)]


async def get_session(registry: RegistryDep) -> Session:
    """A session that `api.routes.ThreadRoute` begins, and commits before it answers: a commit that fails is never
    answered with 200."""
    return registry.sessions()


async def get_read_session(registry: RegistryDep) -> Session:
    """The same that only reads, and waits for no writer."""
    return registry.readers()


SessionDep = Annotated[Session, Depends(get_session)]
ReadSessionDep = Annotated[Session, Depends(get_read_session)]


async def authenticate(request: Request, credentials: _Credentials, key_header: _KeyHeader) -> Principal:
    """The principal of the request's key, which `AuthenticationMiddleware` has found; the headers are named here for
    the OpenAPI document."""
    principal: Principal = request.state.principal
    return principal


PrincipalDep = Annotated[Principal, Depends(authenticate)]


def _with_scope(scope: Scope) -> Callable[[Principal], Coroutine[Any, Any, Principal]]:
    async def require(principal: PrincipalDep) -> Principal:
        principal.require(scope)
        return principal

    return require


ReaderDep = Annotated[Principal, Depends(_with_scope("read"))]
TrainerDep = Annotated[Principal, Depends(_with_scope("train"))]
GeneratorDep = Annotated[Principal, Depends(_with_scope("generate"))]
AdminDep = Annotated[Principal, Depends(_with_scope("admin"))]
OperatorDep = Annotated[Principal, Depends(_with_scope("operator"))]


async def require_internal(request: Request, services: ServicesDep, credentials: _Credentials) -> None:
    """Lets only our own processes in, from where they are known to be.

    Raises:
        HTTPException: 404, as for what is no route, to anybody from elsewhere, or through a proxy.
        Unauthorized: the token is wrong.
    """
    if not services.is_internal(address_of(request.scope)) or any(name in request.headers for name in _OF_PROXIES):
        raise HTTPException(404)
    given = credentials.credentials if credentials else ""
    expected = services.settings.internal_secret
    if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode()):
        raise Unauthorized("this is for Osora's own processes", code="invalid_internal_token")
