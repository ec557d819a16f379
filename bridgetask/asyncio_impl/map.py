"""Calls a task with each item of an iterable, with a bounded number of calls in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

from ..core.completion import Completion
from ..errors import InvalidOption
from .handle import Handle, abandon, check_result_can_come, hold, when_done

__all__ = ["map_calls"]

#: How many calls are made in one turn of the event loop.
_PER_TURN = 20


async def map_calls(
    call: Callable[[Any], Handle],
    iterable: Iterable[Any] | AsyncIterable[Any],
    *,
    limit: int,
    ordered: bool,
    return_exceptions: bool,
) -> AsyncIterator[Any]:
    """Yield a value for each item; see :meth:`bridgetask.Client.map`.

    :param call: calls the task with an item.
    """
    if not isinstance(limit, int) or limit < 1:
        raise InvalidOption("limit", f"must be a whole number from 1 on, not {limit!r}")
    in_flight = _InFlight(ordered)
    items = _each(iterable)
    exhausted = False
    try:
        while True:
            while not exhausted and len(in_flight.calls) < limit:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    exhausted = True
                    break
                in_flight.add(call(item))
                if len(in_flight.calls) % _PER_TURN == 0:
                    await asyncio.sleep(0)
            if not in_flight.calls:
                return
            yield await _value(await in_flight.next(), return_exceptions)
    finally:
        abandon(in_flight.calls)


class _InFlight:
    """The calls whose values were not yielded yet."""

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._ended: deque[Handle] = deque()
        self._news = Completion()
        self.calls: deque[Handle] = deque()

    def add(self, call: Handle) -> None:
        check_result_can_come(call)
        self.calls.append(call)
        if not self._ordered:
            when_done(call, partial(self._note_end, call))

    def _note_end(self, call: Handle) -> None:
        self._ended.append(call)
        self._news.complete()

    async def next(self) -> Handle:
        """Return the call whose value is to be yielded next: the first, or the first to end."""
        if self._ordered:
            return self.calls.popleft()
        while not self._ended:
            self._news = Completion()
            await hold(self.calls[0], self._news)
        call = self._ended.popleft()
        self.calls.remove(call)
        return call


async def _value(call: Handle, return_exceptions: bool) -> Any:
    try:
        return await call.get()
    except Exception as error:
        if return_exceptions:
            return error
        raise


async def _each(iterable: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(iterable, AsyncIterable):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item
