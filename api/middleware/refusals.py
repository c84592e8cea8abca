"""Counts what is refused for its key: see `api.refusals`."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.services import Services

_REFUSED = (401, 403)


class RefusalsMiddleware:
    """Looks at the answers' statuses, whoever gives them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSED:
                services: Services = scope["app"].state.services
                services.refusals.count(scope["state"].get("principal"))
            await send(message)

        await self.app(scope, receive, send_and_count if scope["type"] == "http" else send)
