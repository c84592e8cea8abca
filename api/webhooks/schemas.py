"""Webhook endpoints as OpenAI shapes them; what is ours is under `osora`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from sqlalchemy.orm import Session

from api.schemas import NO_NUL, AtMost, RequestModel
from registry.webhooks import EVENT_TYPES, Answer, EventType
from registry.webhooks.secrets import hint, secret_of
from registry.webhooks.tables import DeliveryStatus, DisabledBecause, WebhookDelivery, WebhookEndpoint

_EXAMPLE: JsonDict = {
    "name": "jobs of the support team",
    "url": "https://hooks.example.com/osora",
    "event_types": ["fine_tuning.job.succeeded", "fine_tuning.job.failed"],
}

_EventTypes = Annotated[
    tuple[EventType, ...],
    AtMost(50),
    Field(min_length=1, strict=False, description="Of which events it is told."),
]
_Name = Annotated[str, Field(min_length=1, max_length=200, description="What it is for."), NO_NUL]
_Url = Annotated[
    str, Field(max_length=2048, description="Where it listens: `https://`, at an address that is public."), NO_NUL
]


class CreateEndpoint(RequestModel):
    """A new endpoint."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: _Name
    url: _Url
    event_types: _EventTypes


class Enabling(RequestModel):
    """What OpenAI's API has no name for."""

    enabled: Annotated[
        bool | None,
        Field(description="Off: nothing is sent and new events are not kept. On again: what waited is sent."),
    ] = None


class UpdateEndpoint(RequestModel):
    """What is to change; the rest stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"event_types": ["fine_tuning.job.failed"], "osora": {"enabled": True}}]}
    )

    name: _Name | None = None
    url: _Url | None = None
    event_types: _EventTypes | None = None
    osora: Enabling = Enabling()


class RotateSecret(RequestModel):
    """What becomes of the secret before."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keep_old_secret_active_for_24_hours": True}]})

    keep_old_secret_active_for_24_hours: Annotated[
        bool, Field(description="Whether each webhook is signed with the old one as well, for a day.")
    ] = False


class TestEndpoint(RequestModel):
    """What to send."""

    __test__ = False  # for pytest, which would take it for one of its own

    model_config = ConfigDict(json_schema_extra={"examples": [{"event_type": "fine_tuning.job.succeeded"}]})

    event_type: EventType


class EndpointState(BaseModel):
    """How it fares."""

    enabled: bool
    disabled_at: int | None
    disabled_because: Annotated[
        DisabledBecause | None,
        Field(description="`failures`: nothing got through for three days; `gone`: it answered 410; `owner`: by hand."),
    ]
    failing_since: Annotated[int | None, Field(description="Since when no delivery has got through.")]
    old_secret_expires_at: Annotated[int | None, Field(description="Until then an old secret signs as well.")]


class EndpointOut(BaseModel):
    """An endpoint, without its secret."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    osora: EndpointState

    @classmethod
    def of(cls, session: Session, endpoint: WebhookEndpoint) -> Self:
        """The endpoint's row as a client sees it."""
        return cls(**_fields(session, endpoint))


class NewEndpointOut(EndpointOut):
    """An endpoint with its secret, shown this once."""

    signing_secret: Annotated[str, Field(repr=False)]

    @classmethod
    def of(cls, session: Session, endpoint: WebhookEndpoint) -> Self:
        """The endpoint's row as whoever made it, or rotated its secret, sees it."""
        return cls(**_fields(session, endpoint), signing_secret=secret_of(session, endpoint.salt))


class EndpointDeleted(BaseModel):
    """Says that an endpoint is gone."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class TestDetails(BaseModel):
    """What came of a test."""

    __test__ = False

    seconds: float
    error: Annotated[str | None, Field(description="Why a delivery with this answer counts as failed.")]


class TestOut(BaseModel):
    """The answer of an endpoint, whatever it was."""

    __test__ = False

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Annotated[Literal[True], Field(description="That there was an answer; `status_code` says which.")] = True
    osora: TestDetails

    @classmethod
    def of(cls, endpoint_id: str, event_type: str, status_code: int, answer: Answer) -> Self:
        """What a receiver that answered has said."""
        details = TestDetails(seconds=round(answer.seconds, 3), error=answer.error)
        return cls(webhook_endpoint_id=endpoint_id, event_type=event_type, status_code=status_code, osora=details)


class EventTypesOut(BaseModel):
    """All types of events."""

    object: Literal["list"] = "list"
    data: tuple[str, ...] = EVENT_TYPES


class AttemptOut(BaseModel):
    """One try."""

    number: int
    at: int
    status_code: Annotated[int | None, Field(description="None where nobody answered.")]
    seconds: float
    error: Annotated[str | None, Field(description="None for a success.")]


class DeliveryOut(BaseModel):
    """A line of the log."""

    id: Annotated[str, Field(description="The header `webhook-id`: the same at every attempt.")]
    object: Literal["webhook_delivery"] = "webhook_delivery"
    created_at: int
    event_id: str
    event_type: str
    data: dict[str, Any]
    status: DeliveryStatus
    next_attempt_at: Annotated[int | None, Field(description="When it is tried again; may be past while it is.")]
    attempts: list[AttemptOut]

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> Self:
        """The delivery's row as a client sees it."""
        return cls(
            id=delivery.id,
            created_at=delivery.created_at,
            event_id=delivery.event_id,
            event_type=delivery.event_type,
            data=delivery.data,
            status=delivery.status,
            next_attempt_at=round(delivery.due_at) if delivery.status == "pending" else None,
            attempts=[AttemptOut(**attempt) for attempt in delivery.attempts],
        )


def _fields(session: Session, endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "signing_secret_hint": hint(secret_of(session, endpoint.salt)),
        "osora": EndpointState(
            enabled=endpoint.disabled_at is None,
            disabled_at=endpoint.disabled_at,
            disabled_because=endpoint.disabled_because,
            failing_since=_seconds(endpoint.failing_since),
            old_secret_expires_at=round(endpoint.old_salts[0]["expires_at"]) if endpoint.old_salts else None,
        ),
    }


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else round(moment)
