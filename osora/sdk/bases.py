"""Bases of a service."""

from osora.schemas import Base, BaseRemoval
from osora.sdk.call import Call, given, once, path
from osora.sdk.endpoint import Mode, Resource, method
from osora.sdk.paging import Items, items


class Bases(Resource[Mode]):
    """What can be fine-tuned and called. Adding and removing takes an `operator` key. Called, it lists: `bases()`."""

    @method
    def __call__(self) -> Call[Items[Base]]:
        """The same as `list`."""
        return Call("GET", "/bases", parse=items)

    @method
    def list(self) -> Call[Items[Base]]:
        """The bases that the service offers, and those that are being made ready; `state` tells them apart."""
        return Call("GET", "/bases", parse=items)

    @method
    def add(self, name: str, source: str | None = None, *, idempotency_key: str | None = None) -> Call[Base]:
        """Add a base to the running service; `list` says how far it is.

        `source`: a directory or a `.gguf` file as the service's machines have it, from / on, or `owner/name` on a model
        hub. Default: the name, of one that comes as a package (`smollm2-135m`).
        """
        return Call("POST", "/bases", json=given(name=name, source=source), headers=once(idempotency_key))

    @method
    def remove(self, name: str, *, leave_adapters: bool = False) -> Call[BaseRemoval]:
        """Take a base off that was added. Adapters and checkpoints on it are a Conflict, unless `leave_adapters`: they
        are kept, and cannot be called until the same base is added again."""
        params = {"leave_adapters": "true" if leave_adapters else "false"}
        return Call("DELETE", path("/bases/{}", name), params=params)
