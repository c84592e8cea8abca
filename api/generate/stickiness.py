"""Which requests belong together: an alias of several models sends them to the same one."""

from fastapi import Request


async def sticky_key(request: Request, *users: str | None) -> bytes:
    """The first of `users` that says anything, else the id that the client sent, else the request's own body.

    A client that asks again after a failure sends the same body, and OpenAI's send no id.
    """
    named = next(filter(None, (*users, request.headers.get("x-request-id"))), None)
    return await request.body() if named is None else named.encode()
