"""One Protocol, local or across the bus: a server and a client made from its type hints.

Only `async def` methods with annotated parameters cross; arguments and results are msgspec types.  A CloudError
raised on the other side is raised here as the same class with the same code.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec

from apus.kernel import errors
from apus.kernel.errors import CloudError, Unavailable
from apus.kernel.world import Bus, Subscription

P = TypeVar("P")

_FAMILY: Final = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, CloudError)
}


class Failure(msgspec.Struct, frozen=True):
    error: str
    code: str
    shown: str
    details: dict[str, Any] = {}


class _Method:
    """How one method's arguments and result go over the wire."""

    def __init__(self, protocol: type, name: str) -> None:
        function = getattr(protocol, name)
        hints = typing.get_type_hints(function)
        self.parameters = list(inspect.signature(function).parameters)[1:]
        types = tuple(hints[parameter] for parameter in self.parameters)
        self.arguments = msgspec.msgpack.Decoder(tuple[types] if types else tuple[()])  # type: ignore[valid-type]
        self.signature = inspect.signature(function)
        self.result = msgspec.msgpack.Decoder(hints.get("return", Any))


def methods_of(protocol: type) -> Sequence[str]:
    return [
        name
        for name, value in vars(protocol).items()
        if not name.startswith("_") and inspect.iscoroutinefunction(value)
    ]


async def serve(bus: Bus, subject: str, protocol: type, target: Any) -> Sequence[Subscription]:
    """Answer `subject.METHOD` with the target's methods."""

    def answering(name: str) -> Callable[[bytes], Coroutine[Any, Any, bytes]]:
        method = _Method(protocol, name)

        async def handle(body: bytes) -> bytes:
            try:
                arguments = method.arguments.decode(body)
                result = await getattr(target, name)(*arguments)
                return b"+" + msgspec.msgpack.encode(result)
            except CloudError as error:
                failure = Failure(type(error).__name__, error.code, error.shown, dict(error.details))
                return b"-" + msgspec.msgpack.encode(failure)

        return handle

    return [await bus.answer(f"{subject}.{name}", answering(name)) for name in methods_of(protocol)]


def client(bus: Bus, subject: str, protocol: type[P], *, timeout_s: float = 10.0) -> P:
    """An object with the Protocol's async methods that asks over the bus.  Each raises Unavailable on silence."""
    made: dict[str, Any] = {"__slots__": ()}
    for name in methods_of(protocol):
        made[name] = _asking(bus, f"{subject}.{name}", _Method(protocol, name), timeout_s)
    return typing.cast(P, type(f"Remote{protocol.__name__}", (), made)())


def _asking(bus: Bus, subject: str, method: _Method, timeout_s: float) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def ask(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = method.signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = [bound.arguments[name] for name in method.parameters]
        reply = await bus.ask(subject, msgspec.msgpack.encode(arguments), timeout_s=timeout_s)
        if reply[:1] == b"+":
            return method.result.decode(reply[1:])
        failure = msgspec.msgpack.decode(reply[1:], type=Failure)
        family = _FAMILY.get(failure.error, Unavailable)
        raise family(failure.code, failure.shown, details=failure.details)

    return ask
