"""What the API opens once, at its start, and every request shares."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import httpx

from api.authenticator import Authenticator
from api.forgetting import Forgetting
from api.gateway import InferenceGateway
from api.in_flight import InFlight
from api.refusals import Refusals
from api.webhooks.courier import Courier
from osora_data.measures import Measure
from registry.context import Registry
from registry.publisher import Publisher
from registry.settings import Settings

# A generation may be long; a server that is there accepts a connection at once.
_TIMEOUT = httpx.Timeout(600, connect=2)
_MEASURED_OF_TENANT = 8
# A request is told that the database is busy while its client still waits.
_BUSY_SECONDS = 5.0


@dataclass(frozen=True)
class Services:
    """The open registry, who knows the keys, the way to the inference servers and to the broker, and those who work in
    the background."""

    registry: Registry
    authenticator: Authenticator
    gateway: InferenceGateway
    publisher: Publisher
    courier: Courier
    refusals: Refusals
    forgetting: Forgetting
    measuring: InFlight[Measure | str]
    """Files that inference servers are measuring: see `api.files.measuring`."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server begins to stop: streams without an end of their own must end now."""

    @property
    def settings(self) -> Settings:
        """The installation's settings."""
        return self.registry.settings

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator["Services"]:
        """Opens everything, lazily where possible, and closes it at exit."""
        # One limit fewer to run into: how many generations run at once is for the inference servers to say.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        publisher = Publisher(settings.broker_url)
        try:
            # A proxy configured for the internet has no way to our own servers.
            async with httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False) as http:
                with (
                    Registry.open(settings, busy_seconds=_BUSY_SECONDS) as registry,
                    Registry.open(settings, busy_seconds=_BUSY_SECONDS) as for_keys,
                ):
                    await asyncio.to_thread(lambda: registry.scratch.folder)  # and what a killed process left goes
                    gateway = InferenceGateway(settings.inference_url_list, settings.internal_secret, http)
                    measuring: InFlight[Measure | str] = InFlight(_MEASURED_OF_TENANT)
                    async with (
                        Courier.working(registry) as courier,
                        Refusals.recording(registry) as refusals,
                        Forgetting.watching(registry, gateway) as forgetting,
                        aclosing(measuring),
                    ):
                        authenticator = Authenticator(for_keys)
                        yield cls(registry, authenticator, gateway, publisher, courier, refusals, forgetting, measuring)
        finally:
            publisher.close()
