"""Webhooks: who is told of what, how it went, and a try."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import ReaderDep, ReadSessionDep, ServicesDep, SessionDep, TrainerDep
from api.idempotency import OnceDep
from api.json_body import JsonRoute
from api.schemas import ListPage, PageQuery, errors
from api.webhooks.schemas import (
    CreateEndpoint,
    DeliveryOut,
    EndpointDeleted,
    EndpointOut,
    EventTypesOut,
    NewEndpointOut,
    RotateSecret,
    TestEndpoint,
    TestOut,
    UpdateEndpoint,
)
from registry import webhooks
from registry.errors import InvalidRequest

router = APIRouter(tags=["webhooks"], route_class=JsonRoute)

_END_THE_OLD_ONE = RotateSecret()
EndpointId = Annotated[str, Path(examples=["webhook-01k9v3t0w5qabcdefghjkmnpqrs"])]


@router.post("/webhook_endpoints", summary="Create a webhook endpoint", responses=errors(400, 401, 403, 409))
def create_endpoint(
    body: CreateEndpoint, session: SessionDep, principal: TrainerDep, services: ServicesDep, once: OnceDep
) -> NewEndpointOut:
    """From now on events of these types are sent there, signed with the secret in this answer, which is shown once."""
    endpoint = webhooks.create(
        session, principal, services.settings, name=body.name, url=body.url, event_types=body.event_types
    )
    return once.keep(session, NewEndpointOut.of(session, endpoint), has_secret=True)


@router.get("/webhook_endpoints", summary="List webhook endpoints", responses=errors(400, 401, 403, 404))
def list_endpoints(
    session: ReadSessionDep, principal: ReaderDep, query: Annotated[PageQuery, Query()]
) -> ListPage[EndpointOut]:
    """The tenant's endpoints, newest first unless asked otherwise."""
    page = webhooks.list(session, principal, **query.model_dump())
    return ListPage[EndpointOut].of([EndpointOut.of(session, endpoint) for endpoint in page.data], page.has_more)


@router.get("/webhook_endpoints/{endpoint_id}", summary="Get a webhook endpoint", responses=errors(401, 403, 404))
def get_endpoint(endpoint_id: EndpointId, session: ReadSessionDep, principal: ReaderDep) -> EndpointOut:
    """The endpoint, whether it is enabled, and since when nothing gets through to it."""
    return EndpointOut.of(session, webhooks.get(session, principal, endpoint_id))


@router.post(
    "/webhook_endpoints/{endpoint_id}", summary="Change a webhook endpoint", responses=errors(400, 401, 403, 404)
)
def update_endpoint(
    endpoint_id: EndpointId, body: UpdateEndpoint, session: SessionDep, principal: TrainerDep, services: ServicesDep
) -> EndpointOut:
    """Changes what is sent. One that was disabled for its failures is enabled again by a new URL."""
    endpoint = webhooks.update(
        session,
        principal,
        services.settings,
        endpoint_id,
        name=body.name,
        url=body.url,
        event_types=body.event_types,
        enabled=body.osora.enabled,
    )
    return EndpointOut.of(session, endpoint)


@router.delete("/webhook_endpoints/{endpoint_id}", summary="Delete a webhook endpoint", responses=errors(401, 403, 404))
def delete_endpoint(endpoint_id: EndpointId, session: SessionDep, principal: TrainerDep) -> EndpointDeleted:
    """Deletes an endpoint with its log. What it was still to be told is not sent."""
    webhooks.delete(session, principal, endpoint_id)
    return EndpointDeleted(id=endpoint_id)


@router.post(
    "/webhook_endpoints/{endpoint_id}/rotate_secret",
    summary="Give a webhook endpoint a new secret",
    responses=errors(400, 401, 403, 404, 409),
)
def rotate_secret(
    endpoint_id: EndpointId,
    session: SessionDep,
    principal: TrainerDep,
    once: OnceDep,
    body: RotateSecret = _END_THE_OLD_ONE,
) -> NewEndpointOut:
    """The new secret is in this answer, and shown once. The old one ends now, or in a day if it is kept.

    Ending it also ends those before it that were kept; keeping it keeps them for the rest of their day, 4 in all.
    """
    keep_old = body.keep_old_secret_active_for_24_hours
    endpoint = webhooks.rotate_secret(session, principal, endpoint_id, keep_old=keep_old)
    return once.keep(session, NewEndpointOut.of(session, endpoint), has_secret=True)


@router.post(
    "/webhook_endpoints/{endpoint_id}/test",
    summary="Send a sample to a webhook endpoint",
    responses=errors(400, 401, 403, 404),
)
async def test_endpoint(
    endpoint_id: EndpointId, body: TestEndpoint, principal: TrainerDep, services: ServicesDep
) -> TestOut:
    """Sends an event that never was, once, and gives the answer's status; an error says why there was no answer."""
    answer = await services.courier.test(principal, endpoint_id, body.event_type)
    if answer.status_code is None:
        raise InvalidRequest(
            f"the webhook endpoint {endpoint_id!r} was not reached: {answer.error}",
            code="webhook_endpoint_unreachable",
            next_action="see that it can be reached from the internet, with TLS and a certificate of its name",
        )
    return TestOut.of(endpoint_id, body.event_type, answer.status_code, answer)


@router.get(
    "/webhook_endpoints/{endpoint_id}/deliveries",
    summary="List what a webhook endpoint was told",
    responses=errors(400, 401, 403, 404),
)
def list_deliveries(
    endpoint_id: EndpointId, session: ReadSessionDep, principal: ReaderDep, query: Annotated[PageQuery, Query()]
) -> ListPage[DeliveryOut]:
    """Its log, newest first unless asked otherwise: what was sent, each attempt and what came of it.

    Kept for `OSORA_WEBHOOK_RETENTION_DAYS`.
    """
    page = webhooks.deliveries(session, principal, endpoint_id, **query.model_dump())
    return ListPage[DeliveryOut].of([DeliveryOut.of(delivery) for delivery in page.data], page.has_more)


@router.get("/webhook_event_types", summary="List the types of webhook events", responses=errors(401, 403))
def list_event_types(principal: ReaderDep) -> EventTypesOut:
    """What an endpoint can be told of."""
    return EventTypesOut()
