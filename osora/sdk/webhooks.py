"""Addresses that are told of events."""

from collections.abc import Sequence

from osora.options import Order
from osora.schemas import WebhookDelivery, WebhookEndpoint, WebhookTest
from osora.sdk.call import Call, given, nothing, once, path
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.paging import Items, Listing, words


class Webhooks(Resource[Mode]):
    """Webhook endpoints. What arrives at one is checked by `osora.verify_webhook`."""

    @method
    def create(
        self, url: str, event_types: Sequence[str], *, name: str, idempotency_key: str | None = None
    ) -> Call[WebhookEndpoint]:
        """A new endpoint. Its secret is in the answer's `signing_secret`, this once."""
        body = {"url": url, "event_types": list(event_types), "name": name}
        return Call("POST", "/webhook_endpoints", json=body, headers=once(idempotency_key))

    @iterated
    def list(
        self, limit: int | None = None, after: str | None = None, *, order: Order | None = None
    ) -> Listing[WebhookEndpoint]:
        """Newest first: all of them, or at most `limit`."""
        return Listing("/webhook_endpoints", limit, after, given(order=order))

    @method
    def get(self, endpoint_id: str) -> Call[WebhookEndpoint]:
        """An endpoint, without its secret."""
        return Call("GET", path("/webhook_endpoints/{}", endpoint_id))

    @method
    def update(
        self,
        endpoint_id: str,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Call[WebhookEndpoint]:
        """Change its name, URL or types of events, or whether it is told of anything; the rest stays."""
        types = None if event_types is None else list(event_types)
        ours = None if enabled is None else {"enabled": enabled}
        body = given(name=name, url=url, event_types=types, osora=ours)
        return Call("POST", path("/webhook_endpoints/{}", endpoint_id), json=body)

    @method
    def rotate_secret(
        self, endpoint_id: str, *, keep_old: bool = False, idempotency_key: str | None = None
    ) -> Call[WebhookEndpoint]:
        """A new secret, in the answer's `signing_secret`. With `keep_old` the old one is valid for a day more."""
        body = {"keep_old_secret_active_for_24_hours": keep_old}
        where = path("/webhook_endpoints/{}/rotate_secret", endpoint_id)
        return Call("POST", where, json=body, headers=once(idempotency_key))

    @method
    def test(self, endpoint_id: str, event_type: str) -> Call[WebhookTest]:
        """Send a sample; what answered is in `status_code`, and why that is no success in `osora.error`."""
        where = path("/webhook_endpoints/{}/test", endpoint_id)
        return Call("POST", where, json={"event_type": event_type}, repeatable=False)

    @iterated
    def deliveries(
        self, endpoint_id: str, limit: int | None = None, after: str | None = None, *, order: Order | None = None
    ) -> Listing[WebhookDelivery]:
        """What an endpoint was told, newest first: all that is kept, or at most `limit`."""
        return Listing(path("/webhook_endpoints/{}/deliveries", endpoint_id), limit, after, given(order=order))

    @method
    def event_types(self) -> Call[Items[str]]:
        """All types of events."""
        return Call("GET", "/webhook_event_types", parse=words)

    @method
    def delete(self, endpoint_id: str) -> Call[None]:
        """Delete an endpoint with its log. What it was still to be told is not sent."""
        return Call("DELETE", path("/webhook_endpoints/{}", endpoint_id), parse=nothing)
