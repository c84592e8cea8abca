"""A place for a file: to be pressed, or to drop one on."""

from collections.abc import Callable

from nicegui import events, ui

from console.words import human_bytes


def file_field(label: str, most_bytes: int, on_file: Callable[[events.UploadEventArguments], object]) -> None:
    """`on_file` is told of each file that comes; one that is too large is refused in the browser."""

    def refused() -> None:
        most = f"A file may have {human_bytes(most_bytes)} here. Next: send it as a training file, and choose it."
        ui.notify(most, type="negative", timeout=0, close_button="Close")

    # The framework's own element does the sending, unseen: what it shows cannot be used without a mouse.
    sender = ui.upload(on_upload=on_file, on_rejected=refused, max_file_size=most_bytes, auto_upload=True)
    sender.classes("hidden")
    with ui.element("button").props("type=button").classes("file-field") as field:
        ui.icon("upload_file").props("aria-hidden=true")
        ui.label(label)
    taken = f"getElement({sender.id})"
    field.on("click", js_handler=f"() => {taken}.pickFiles()")
    field.on("dragover", js_handler="(event) => event.preventDefault()")
    dropped = f"event.preventDefault(); {taken}.reset(); {taken}.addFiles(event.dataTransfer.files);"
    field.on("drop", js_handler=f"(event) => {{ {dropped} }}")
