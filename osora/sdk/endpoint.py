"""Methods that are written once and belong to both clients.

    class Jobs(Resource[Mode]):
        @method
        def get(self, job_id: str) -> Call[Job]:
            return Call("GET", path("/jobs/{}", job_id))

`Jobs[Sync].get` takes a job's id and returns a `Job`; `Jobs[Async].get` returns an awaitable of one.
"""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, get_args, get_type_hints, overload

from osora.sdk.call import Call, Steps
from osora.sdk.transport import AsyncTransport, Transport

P = ParamSpec("P")
T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)
A_co = TypeVar("A_co", covariant=True)


class Sync:
    """The mode of `Osora`: a method returns what came."""


class Async:
    """The mode of `AsyncOsora`: a method returns what to await."""


Mode = TypeVar("Mode", Sync, Async)


class Resource(Generic[Mode]):
    """Methods about one kind of thing."""

    def __init__(self, transport: Transport | AsyncTransport) -> None:
        self._transport = transport


class method(Generic[P, T]):
    """Of what describes a call or its steps, the method that carries it out."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T] | Steps[T]]) -> None:
        self._describe = describe
        _dress(self, describe, get_args(inspect.signature(describe).return_annotation)[-1])

    @overload
    def __get__(self, instance: Resource[Sync], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Resource[Async], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        transport, describe = instance._transport, self._describe
        if isinstance(transport, Transport):

            def carry_out(*args: P.args, **kwargs: P.kwargs) -> T:
                return transport.carry_out(describe(instance, *args, **kwargs))

            return _bound(carry_out, self)

        async def carry_out_async(*args: P.args, **kwargs: P.kwargs) -> T:
            result: T = await transport.carry_out(describe(instance, *args, **kwargs))
            return result

        return _bound(carry_out_async, self)


class Lazy(Protocol[S_co, A_co]):
    """What is fetched while it is iterated."""

    def sync(self, transport: Transport) -> S_co:
        """For `Osora`."""

    def asynchronous(self, transport: AsyncTransport) -> A_co:
        """For `AsyncOsora`."""


class iterated(Generic[P, S_co, A_co]):
    """Of what describes a list or a stream, the method that returns it, to be iterated."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Lazy[S_co, A_co]]) -> None:
        self._describe = describe
        _dress(self, describe, inspect.signature(describe).return_annotation)

    @overload
    def __get__(self, instance: Resource[Sync], owner: type) -> Callable[P, S_co]: ...
    @overload
    def __get__(self, instance: Resource[Async], owner: type) -> Callable[P, A_co]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        transport, describe = instance._transport, self._describe

        def begin(*args: P.args, **kwargs: P.kwargs) -> Any:
            lazy = describe(instance, *args, **kwargs)
            return lazy.sync(transport) if isinstance(transport, Transport) else lazy.asynchronous(transport)

        return _bound(begin, self)


def _dress(of: Any, describe: Callable[..., Any], returned: Any) -> None:
    """Gives it the name, the docstring and the signature by which a user knows the method."""
    functools.update_wrapper(of, describe)
    del of.__wrapped__  # `inspect` would go on to it
    _self, *parameters = inspect.signature(describe).parameters.values()
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        (fields,) = get_args(parameters.pop().annotation)  # of Unpack
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
            for name, hint in get_type_hints(fields).items()
        ]
    of.__signature__ = inspect.Signature(parameters, return_annotation=returned)


def _bound(function: Any, of: Any) -> Any:
    function.__name__, function.__qualname__, function.__doc__ = of.__name__, of.__qualname__, of.__doc__
    function.__module__, function.__signature__ = of.__module__, of.__signature__
    return function
