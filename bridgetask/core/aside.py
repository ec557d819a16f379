"""Messages that wait for the result backend to come back, while others go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from .publishing import Sending

__all__ = ["Aside"]


class Aside:
    """Keeps messages for as long as their retry policies want a pause.

    :param on_over: called with each of them after that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_over: Callable[[Sending], None]) -> None:
        self._loop = loop
        self._on_over = on_over
        self._timers: dict[Sending, asyncio.TimerHandle] = {}

    def __iter__(self) -> Iterator[Sending]:
        return iter(self._timers)

    def put(self, sending: Sending) -> None:
        """Keep a message for a while."""
        self._timers[sending] = self._loop.call_later(sending.pause, self._let_go, sending)

    def cancel(self) -> None:
        """Call back for nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _let_go(self, sending: Sending) -> None:
        del self._timers[sending]
        self._on_over(sending)
