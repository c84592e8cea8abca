"""What jobs made, and what was brought from elsewhere."""

import os
from functools import partial
from pathlib import Path

from osora.options import Order
from osora.schemas import Adapter, AdapterFormat, ImportedAdapter
from osora.sdk.call import Call, Form, Steps, Work, given, nothing, once, path
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.files import saved
from osora.sdk.paging import Listing
from osora.sdk.pieces import Pieces
from osora.sdk.sources import FileSource, Progress, opened, zipped


class Adapters(Resource[Mode]):
    """Adapters. Each is named by its id or by its model name (`ft:…`)."""

    @iterated
    def list(
        self, limit: int | None = None, after: str | None = None, *, base: str | None = None, order: Order | None = None
    ) -> Listing[Adapter]:
        """Newest first: all of them, or at most `limit`, after the one with this id."""
        return Listing("/adapters", limit, after, given(base=base, order=order))

    @method
    def get(self, adapter: str) -> Call[Adapter]:
        """What is known of an adapter, or of a job's checkpoint."""
        return Call("GET", path("/adapters/{}", adapter))

    @method
    def upload(
        self,
        source: FileSource,
        base: str | None = None,
        suffix: str | None = None,
        *,
        on_progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[ImportedAdapter]:
        """Bring an adapter of the same base: a folder that PEFT saved (OSoRA, or a plain LoRA), or a ZIP of one.

        `base`: default the only one on offer. `suffix` becomes a part of its name.
        """
        folder = Path(source) if isinstance(source, str | os.PathLike) else None
        if folder is not None and folder.is_dir():
            with (yield Work(partial(zipped, folder))) as archive:
                name = f"{folder.resolve().name}.zip"
                return (yield from _upload(archive, name, base, suffix, on_progress, idempotency_key))
        return (yield from _upload(source, None, base, suffix, on_progress, idempotency_key))

    @method
    def download(self, adapter: str, path: str | os.PathLike[str], format: AdapterFormat | None = None) -> Steps[int]:
        """Write the adapter, zipped, to `path`, whole or not at all; returns its bytes.

        Without a `format` it is what it is: the PEFT directory as it was trained, or the LoRA as it came. "osora" is
        the first of these, "lora" the adapter as a LoRA, "merged" a checkpoint of the base with the adapter folded in,
        "gguf" that for llama.cpp and Ollama.
        """
        return (yield from saved(_download(adapter), path, given(format=format)))

    @iterated
    def pieces(self, adapter: str, format: AdapterFormat | None = None) -> Pieces:
        """What `download` writes, in pieces as they come: to be passed on, without a file here."""
        return Pieces(_download(adapter), given(format=format))

    @method
    def delete(self, adapter: str) -> Call[None]:
        """Delete an adapter for good, or a checkpoint of a job that has ended."""
        return Call("DELETE", path("/adapters/{}", adapter), parse=nothing)


def _download(adapter: str) -> str:
    return path("/adapters/{}/download", adapter)


def _upload(
    archive: FileSource,
    name: str | None,
    base: str | None,
    suffix: str | None,
    on_progress: Progress | None,
    key: str | None,
) -> Steps[ImportedAdapter]:
    with opened(archive, name, "adapter.zip", on_progress) as source:

        def form() -> Form:
            fields = given(base=base, suffix=suffix)
            return Form(fields=fields, file=("file", source.name, source.part(0, source.size)))

        adapter: ImportedAdapter = yield Call("POST", "/adapters", form=form, headers=once(key))
        return adapter
