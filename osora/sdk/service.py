"""What both clients have."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from osora.options import GenerateOptions
from osora.schemas import Generation, Message, Readiness, System
from osora.sdk.adapters import Adapters
from osora.sdk.audit import Audit
from osora.sdk.bases import Bases
from osora.sdk.basis import library_folder, pull
from osora.sdk.call import Call, Steps, given
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.files import Files, Uploads
from osora.sdk.jobs import Jobs
from osora.sdk.keys import Keys
from osora.sdk.limits import Limits
from osora.sdk.names import Aliases, Permissions
from osora.sdk.streams import Stream
from osora.sdk.tenants import Tenants
from osora.sdk.transport import AsyncTransport, Transport
from osora.sdk.usage import UsageReports
from osora.sdk.webhooks import Webhooks


class Service(Resource[Mode]):
    """One Osora service."""

    def __init__(self, transport: Transport | AsyncTransport) -> None:
        super().__init__(transport)
        self.files: Files[Mode] = Files(transport)
        self.uploads: Uploads[Mode] = Uploads(transport)
        self.jobs: Jobs[Mode] = Jobs(transport)
        self.bases: Bases[Mode] = Bases(transport)
        self.adapters: Adapters[Mode] = Adapters(transport)
        self.aliases: Aliases[Mode] = Aliases(transport)
        self.permissions: Permissions[Mode] = Permissions(transport)
        self.keys: Keys[Mode] = Keys(transport)
        self.tenants: Tenants[Mode] = Tenants(transport)
        self.audit: Audit[Mode] = Audit(transport)
        self.limits: Limits[Mode] = Limits(transport)
        self.webhooks: Webhooks[Mode] = Webhooks(transport)
        self.usage: UsageReports[Mode] = UsageReports(transport)

    @property
    def url(self) -> str:
        """Where the service is, without a trailing slash."""
        return self._transport.target.url

    @method
    def generate(
        self, prompt: str | Sequence[Message], *, adapter: str | None = None, **options: Unpack[GenerateOptions]
    ) -> Call[Generation]:
        """Text for a prompt (a string, or messages of a conversation), by an adapter, an alias or the bare base."""
        return Call("POST", "/generate", json=_generation_body(prompt, adapter, options))

    @iterated
    def stream(
        self, prompt: str | Sequence[Message], *, adapter: str | None = None, **options: Unpack[GenerateOptions]
    ) -> Stream:
        """Like `generate`, piece by piece: iterate the answer; its `result` is there at the end.

        With n, the pieces are those of the first answer; the others are in the result.
        """
        return Stream(_generation_body(prompt, adapter, options))

    @method
    def pull_basis(self, base: str, folder: str | os.PathLike[str] | None = None) -> Steps[Path]:
        """Bring the stored basis of a base (or the one of this hash) here, so that its adapters load in PEFT.

        `folder`: default where `osora_core` finds it by itself; another is named to it in OSORA_BASIS_FROM. Returns the
        file, which is there whole or not at all. What breaks off is taken up again, also by another call.
        """
        return (yield from pull(base, library_folder() if folder is None else Path(folder)))

    @method
    def system(self) -> Call[System]:
        """Workers, inference servers, queue and throughput of the whole installation; takes an `operator` key."""
        return Call("GET", "/system")

    @method
    def health(self) -> Call[dict[str, Any]]:
        """That the process answers; nothing is said of what it stands on."""
        return Call("GET", "/health")

    @method
    def ready(self) -> Call[Readiness]:
        """The state of the service's parts; an unready service is an answer, not an error."""
        return Call("GET", "/ready", accept=(503,))


def _generation_body(prompt: str | Sequence[Message], adapter: str | None, options: GenerateOptions) -> dict[str, Any]:
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": [*prompt]}
    return given(**asked, adapter_id=adapter, **options)
