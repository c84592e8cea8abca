"""The way of a request for text through a door that has shapes of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from api.generate.generation import run
from api.generate.schemas import GenerateRequest
from api.generate.stickiness import sticky_key
from api.generate.target import resolve_model
from api.generate.translation import Translation
from api.services import Services
from registry.errors import InvalidRequest
from registry.references import Target
from registry.tenants import Principal


class Asked(Protocol):
    """A request in a door's own shape."""

    model: str

    @property
    def users(self) -> tuple[str | None, ...]:
        """Who it is for, by the fields that may say so, the one that counts most first."""
        ...

    def to_generate(self, target: Target) -> GenerateRequest:
        """The native request. Raises `RequestValidationError` for fields that cannot be had together."""
        ...


async def respond(
    translation: Translation, body: Asked, request: Request, services: Services, principal: Principal
) -> Response:
    """The native answer in the door's shape."""
    key = await sticky_key(request, *body.users)
    target = await run_in_threadpool(resolve_model, services.registry, principal, body.model, key)
    native = await run(services, principal, request, target, body.to_generate(target), translation.id)
    return translation.translate(native)


def native_request(target: Target, fields: Mapping[str, Any], asked: BaseModel) -> GenerateRequest:
    """The native request with these fields, which were `asked` for in a door's shape.

    Raises `RequestValidationError` for fields that cannot be had together.
    """
    named = {"base": target.base} if target.adapter is None else {"adapter_id": target.adapter.id}
    try:
        return GenerateRequest.model_validate({**fields, **named})
    except ValidationError as error:
        findings = [{**finding, "loc": ("body", *finding["loc"])} for finding in error.errors()]
        raise RequestValidationError(findings, body=asked.model_dump()) from error


@contextmanager
def calls_named(param: str, next_action: str) -> Iterator[None]:
    """Calls and results that do not fit are refused as a flaw of `param`: its own items are not numbered like messages.

    Raises `InvalidRequest`.
    """
    try:
        yield
    except InvalidRequest as error:
        if not (error.param or "").startswith("messages"):
            raise
        message = f"{param}, read as chat messages: {error.message}"
        raise InvalidRequest(message, param=param, code=error.code, next_action=next_action) from error
