"""A place for a file."""

from nicegui import ui


class Drop(ui.upload, component="drop.js"):
    """Where a file is dropped, or chosen by keyboard: `on_upload` is told of it."""
