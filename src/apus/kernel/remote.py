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
from apus.kernel.log import get_logger
from apus.kernel.world import Bus, Subscription

P = TypeVar("P")
_log: Final = get_logger("apus.remote")

_FAMILY: Final = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, CloudError)
}


class Failure(msgspec.Struct, frozen=True):
    error: str
    code: str
    shown: str
    details: dict[str, Any] = {}
    field: str | None = None


class _Method:
    """How one method's arguments and result go over the wire."""

    def __init__(self, protocol: type, name: str) -> None:
        function = getattr(protocol, name)
        hints = typing.get_type_hints(function)
        self.signature = inspect.signature(function)
        self.parameters = list(self.signature.parameters)[1:]
        self.named = [name for name in self.parameters if _is_named(self.signature.parameters[name])]
        types = tuple(hints[parameter] for parameter in self.parameters)
        self.arguments = msgspec.msgpack.Decoder(tuple[types] if types else tuple[()])  # type: ignore[valid-type]
        self.result = msgspec.msgpack.Decoder(hints.get("return", Any))

    async def call(self, function: Callable[..., Coroutine[Any, Any, Any]], body: bytes) -> bytes:
        values = self.arguments.decode(body)
        placed = len(self.parameters) - len(self.named)  # Python has the named parameters last
        named = dict(zip(self.named, values[placed:], strict=True))
        return msgspec.msgpack.encode(await function(*values[:placed], **named))


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY


def methods_of(protocol: type) -> Sequence[str]:
    """Its coroutine methods, those of the Protocols that it extends first."""
    found = {name: value for kind in reversed(protocol.__mro__) for name, value in vars(kind).items()}
    return [name for name, value in found.items() if not name.startswith("_") and inspect.iscoroutinefunction(value)]


async def serve(bus: Bus, subject: str, protocol: type, target: Any) -> Sequence[Subscription]:
    """Answer `subject.METHOD` with the target's methods."""

    def answering(name: str) -> Callable[[bytes], Coroutine[Any, Any, bytes]]:
        method = _Method(protocol, name)

        async def handle(body: bytes) -> bytes:
            try:
                return b"+" + await method.call(getattr(target, name), body)
            except CloudError as error:
                if error.hidden:  # it does not cross: this is the last that is seen of it
                    _log.warning("refused", asked=f"{subject}.{name}", code=error.code, hidden=error.hidden)
                return b"-" + msgspec.msgpack.encode(_failure_of(error))

        return handle

    return [await bus.answer(f"{subject}.{name}", answering(name)) for name in methods_of(protocol)]


def _failure_of(error: CloudError) -> Failure:
    known = next(kind.__name__ for kind in type(error).__mro__ if _FAMILY.get(kind.__name__) is kind)
    field = error.field if isinstance(error, errors.Invalid) else None
    return Failure(known, error.code, error.shown, dict(error.details), field)


def _raised(failure: Failure) -> CloudError:
    family = _FAMILY.get(failure.error, Unavailable)
    if issubclass(family, errors.Invalid):
        return family(failure.code, failure.shown, field=failure.field, details=failure.details)
    return family(failure.code, failure.shown, details=failure.details)


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
        raise _raised(msgspec.msgpack.decode(reply[1:], type=Failure))

    return ask
