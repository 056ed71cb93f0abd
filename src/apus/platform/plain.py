"""Lets a plain function wait for the loop: it runs on a greenlet, and gives way to its caller at each wait."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


def wait_for(awaitable: Awaitable[T]) -> T:
    """To be called below `plainly`: the result of the awaitable, while the loop goes on."""
    caller = getcurrent().parent
    assert caller is not None, "not inside plainly()"
    result: T = caller.switch(awaitable)
    return result


async def plainly(function: Callable[[], T]) -> T:
    """Run the function; what it waits for is awaited here, and errors (a cancellation too) are raised there."""
    inner = greenlet(function)
    inner.gr_context = contextvars.copy_context()
    result: Any = inner.switch()
    while not inner.dead:
        try:
            value = await result
        except BaseException as error:
            result = inner.throw(error)
        else:
            result = inner.switch(value)
    done: T = result
    return done
