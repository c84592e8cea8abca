"""Webhooks: whom to tell of what, and what is still to be told.

`record` writes an event's deliveries in the transaction of the change that it tells of: one that is rolled back is
never told, one that is committed is not lost. The API's processes `claim` deliveries that are due, send them and
`settle` each (`api.webhooks.courier`). A claim is a lease, so of any number of processes one sends; if it dies, another
sends again, with the same `webhook-id`.
"""

from registry.webhooks.delivering import Answer, Delivery, any_due, claim, sample, settle
from registry.webhooks.delivering import list_deliveries as deliveries
from registry.webhooks.endpoints import create, delete, get, rotate_secret, seal_anew, update
from registry.webhooks.endpoints import list_endpoints as list
from registry.webhooks.events import EVENT_TYPES, EventType, record

__all__ = [
    "EVENT_TYPES",
    "Answer",
    "Delivery",
    "EventType",
    "any_due",
    "claim",
    "create",
    "delete",
    "deliveries",
    "get",
    "list",
    "record",
    "rotate_secret",
    "sample",
    "seal_anew",
    "settle",
    "update",
]
