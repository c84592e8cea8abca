"""`osora webhooks`."""

from typing import Annotated, Any

import typer

from osora.cli.asking import Yes, confirm
from osora.cli.lists import DEFAULT_LIMIT, All, Limit, fetch, most, show_list
from osora.cli.names import completing
from osora.cli.output import ExitCode, Json, print_json, say, when
from osora.schemas import WebhookDelivery, WebhookEndpoint
from osora.sdk import Osora

app = typer.Typer(invoke_without_command=True, help="Addresses that are told of events. Without a command: all.")
EndpointId = Annotated[str, typer.Argument(metavar="ID", autocompletion=completing("endpoint"))]


@app.callback()
def default(context: typer.Context, limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_endpoints(limit, every, as_json)


@app.command("list")
def list_endpoints(limit: Limit = DEFAULT_LIMIT, every: All = False, as_json: Json = False) -> None:
    """Your endpoints, and whether anything gets through to them."""
    with Osora() as osora:
        endpoints = fetch(osora.webhooks.list(most(limit, every)))
    columns = ("id", "name", "url", "events", "state")
    empty = "No webhooks. Next: osora webhooks create https://…"
    show_list(endpoints, as_json, columns, _row, empty, spare=("events", "name"), cropped="url")


@app.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it listens: https://…")],
    event: Annotated[list[str] | None, typer.Option(help="A type of events; repeatable. Default: all.")] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "osora",
    as_json: Json = False,
) -> None:
    """Have an address told of events. The secret that signs them is shown once."""
    with Osora() as osora:
        endpoint = osora.webhooks.create(url, event or osora.webhooks.event_types(), name=name)
    _show_secret(endpoint, as_json)


@app.command()
def rotate(
    endpoint_id: EndpointId,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Sign with the old one as well, for a day.")] = False,
    as_json: Json = False,
) -> None:
    """Give an endpoint a new secret. It is shown once."""
    with Osora() as osora:
        endpoint = osora.webhooks.rotate_secret(endpoint_id, keep_old=keep_old)
    _show_secret(endpoint, as_json)


@app.command()
def enable(endpoint_id: EndpointId, as_json: Json = False) -> None:
    """Tell an endpoint of events again, and of what still waits."""
    with Osora() as osora:
        endpoint = osora.webhooks.update(endpoint_id, enabled=True)
    if as_json:
        print_json(endpoint)
    else:
        say(f"Enabled {endpoint_id}.")


@app.command("test")
def send_sample(
    endpoint_id: EndpointId,
    event: Annotated[str, typer.Option(help="The type of the sample.")] = "fine_tuning.job.succeeded",
    as_json: Json = False,
) -> None:
    """Send a sample, and say what answered. Exits with 1 unless that is a success."""
    with Osora() as osora:
        result = osora.webhooks.test(endpoint_id, event)
    error = result.get("osora", {}).get("error")
    if as_json:
        print_json(result)
    else:
        say(f"Status {result['status_code']}." + (f" A delivery would have failed: {error}." if error else ""))
    if error:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def log(
    endpoint_id: EndpointId,
    limit: Limit = DEFAULT_LIMIT,
    every: All = False,
    as_json: Json = False,
) -> None:
    """What an endpoint was told, newest first, and what came of it."""
    with Osora() as osora:
        deliveries = fetch(osora.webhooks.deliveries(endpoint_id, most(limit, every)))
    columns = ("time", "event", "about", "status", "attempts", "last", "next", "id")
    empty = "No events are in its log. Samples, of osora webhooks test, do not come there."
    show_list(deliveries, as_json, columns, _delivery_row, empty, spare=("about", "id", "attempts", "next"))


@app.command()
def delete(endpoint_id: EndpointId, yes: Yes = False, as_json: Json = False) -> None:
    """Delete an endpoint with its log."""
    confirm(f"Delete {endpoint_id} with its log?", yes, as_json)
    with Osora() as osora:
        osora.webhooks.delete(endpoint_id)
    if as_json:
        print_json({"id": endpoint_id, "deleted": True})
    else:
        say(f"Deleted {endpoint_id}.")


def _show_secret(endpoint: WebhookEndpoint, as_json: bool) -> None:
    if as_json:
        print_json(endpoint)
    else:
        say(f"{endpoint['signing_secret']}\nKeep it now: it is not shown again (id {endpoint['id']}).")


def _row(endpoint: WebhookEndpoint) -> tuple[object, ...]:
    events = " ".join(endpoint.get("event_types", []))
    return endpoint["id"], endpoint["name"], endpoint["url"], events, _state(endpoint.get("osora", {}))


def _delivery_row(delivery: WebhookDelivery) -> tuple[object, ...]:
    about = delivery.get("data", {}).get("id")
    return when(delivery["created_at"]), delivery["event_type"], about, *_outcome(delivery), delivery["id"]


def _state(state: dict[str, Any]) -> str:
    if not state.get("enabled", True):
        return f"disabled {when(state.get('disabled_at'))} ({state.get('disabled_because')})"
    failing_since = state.get("failing_since")
    return f"failing since {when(failing_since)}" if failing_since else "enabled"


def _outcome(delivery: WebhookDelivery) -> tuple[str, int, str, str]:
    """Its status, the number of attempts, what came of the last, when the next is."""
    attempts = delivery.get("attempts", [])
    last = ""
    if attempts:
        said = attempts[-1].get("error") or attempts[-1].get("status_code")
        last = f"{said} ({attempts[-1].get('seconds', 0):.1f} s)"
    return delivery["status"], len(attempts), last, when(delivery.get("next_attempt_at"))
