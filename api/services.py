"""What the API opens once, at its start, and every request shares."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import httpx
from anyio import CapacityLimiter

from api.authenticator import Authenticator
from api.bases.keeping import Keeping
from api.event_reader import EventReader
from api.forgetting import Forgetting
from api.gateway import InferenceGateway
from api.health.schemas import Readiness
from api.in_flight import InFlight
from api.key_uses import writing_key_uses
from api.lanes import Lanes
from api.limits.service import Limits
from api.refusals import Refusals
from api.revocation import Revocations
from api.usage.collector import Collector
from api.webhooks.courier import Courier
from osora_common.freed_memory import giving_back
from osora_common.turns import Turns
from osora_data.measures import Measure
from registry.context import Registry
from registry.http_values import networks_of
from registry.publisher import Publisher
from registry.settings import Settings

# A generation may be long; a server that is there accepts a connection at once.
_TIMEOUT = httpx.Timeout(600, connect=2)
_MEASURED_OF_TENANT = 8
_WAITING = 4
# A request is told that the database is busy while its client still waits.
_BUSY_SECONDS = 5.0
_LOOKS = 8


@dataclass(frozen=True)
class Services:
    """The open registry, the ways to inference servers and broker, who delivers webhooks, and what tenants may take."""

    registry: Registry
    authenticator: Authenticator
    events: EventReader
    aside: Registry
    """The registry again, with connections that no route uses up."""
    gateway: InferenceGateway
    publisher: Publisher
    bases: Keeping
    """Has inference servers hold the bases that were added."""
    courier: Courier
    refusals: Refusals
    forgetting: Forgetting
    limits: Limits
    measuring: InFlight[Measure | str]
    """Files that inference servers are measuring: see `api.files.measuring`."""
    revocations: Revocations
    """Tells streams of the end of their keys."""
    looks: InFlight[Readiness] = field(default_factory=lambda: InFlight(1))
    """What `GET /ready` is looking at."""
    threads_for_looks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_LOOKS))
    threads_for_waiting: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_WAITING))
    """Look whether the request is over that another one waits for."""
    lanes: Lanes = field(default_factory=Lanes)
    """Of those who read."""
    large_bodies: Turns = field(default_factory=Turns)
    """Reads bodies that take a while."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server begins to stop: streams without an end of their own must end now."""

    @property
    def settings(self) -> Settings:
        """The installation's settings."""
        return self.registry.settings

    def is_internal(self, address: str | None) -> bool:
        """Whether our own processes may be calling from there."""
        found = address and ip_address(address)
        return bool(found) and any(found in network for network in networks_of(self.settings.internal_networks))

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator["Services"]:
        """Opens everything, lazily where possible, and closes it at exit."""
        # One limit fewer to run into: how many generations run at once is for the inference servers to say.
        connections = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        publisher = Publisher(settings.broker_url)
        try:
            # A proxy configured for the internet has no way to our own servers.
            async with httpx.AsyncClient(timeout=_TIMEOUT, limits=connections, trust_env=False) as http:
                with (
                    giving_back(),
                    Registry.open(settings, busy_seconds=_BUSY_SECONDS) as registry,
                    Registry.open(settings, busy_seconds=_BUSY_SECONDS) as aside,
                ):
                    await asyncio.to_thread(lambda: registry.scratch.folder)  # and what a killed process left goes
                    gateway = InferenceGateway(settings.inference_url_list, settings.internal_secret, http)
                    measuring: InFlight[Measure | str] = InFlight(_MEASURED_OF_TENANT)
                    authenticator = Authenticator(aside)
                    async with (
                        Limits.open(aside) as limits,
                        Courier.working(registry) as courier,
                        Refusals.recording(registry) as refusals,
                        Forgetting.watching(registry, gateway) as forgetting,
                        Keeping.watching(aside, gateway) as bases,
                        EventReader.working(aside) as events,
                        Revocations.working(aside, authenticator.forget) as revocations,
                        Collector.working(registry, gateway),
                        writing_key_uses(aside),
                        aclosing(measuring),
                    ):
                        yield cls(
                            registry=registry,
                            authenticator=authenticator,
                            events=events,
                            aside=aside,
                            gateway=gateway,
                            publisher=publisher,
                            bases=bases,
                            courier=courier,
                            refusals=refusals,
                            forgetting=forgetting,
                            limits=limits,
                            measuring=measuring,
                            revocations=revocations,
                        )
        finally:
            publisher.close()
