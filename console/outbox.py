"""What a browser has missed while its connection was gone."""

from collections import deque

from nicegui import outbox as framework
from nicegui.outbox import MessageId, Outbox

_Entries = deque[framework.HistoryEntry]


def install() -> None:
    """Have every page catch up by `catch_up`.

    The framework's own way sends what was missed once more as it was then, after what has changed since: a curve that
    had gone on, or a job that had ended, would look again as it did when the connection broke off.
    """
    Outbox.try_rewind = catch_up  # type: ignore[method-assign,assignment]


def catch_up(outbox: Outbox, missed: MessageId) -> None:
    """Send all from the message `missed` on: of elements how they are now, of other messages each as it was. A page
    whose messages are not kept any more is loaded anew."""
    if missed == outbox.next_message_id:
        return
    entries: _Entries = deque(entry for entry in outbox.message_history if entry[0] >= missed)
    if not entries or entries[0][0] != missed:
        outbox.client.run_javascript("window.location.reload()")
        return
    outbox.message_history.clear()
    outbox.next_message_id = missed
    # The browser may lack these too; it does not load twice what it has.
    outbox._loaded_components.clear()
    for _, _, message in reversed(entries):
        _, kind, data = message
        if kind == "update":
            for name in data.keys() - {"_id"}:
                outbox.updates.setdefault(name, outbox.client.elements.get(name, framework.deleted))
        elif kind != "load_js_components":
            outbox.messages.appendleft(message)
    outbox._set_enqueue_event()
