"""The deadlines of all messages on their way, by one timer."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable, Set
from operator import attrgetter

from .publishing import Sending

__all__ = ["Deadlines"]

_deadline = attrgetter("deadline")


class Deadlines:
    """Calls back for every message that has not been settled in time.

    A timer of its own for each message would cost more than encoding it. Since nearly all messages
    may take equally long, they are kept in the order of their deadlines at no cost.

    :param on_expired: called with each of them.
    :param in_flight: the messages that were published and not confirmed. One of them is not settled
        by its result alone: it keeps others from going.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_expired: Callable[[Sending], None],
        in_flight: Set[Sending],
    ) -> None:
        self._loop = loop
        self._on_expired = on_expired
        self._in_flight = in_flight
        self._waiting: deque[Sending] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sending: Sending) -> None:
        """Watch over a message until it is settled."""
        waiting = self._waiting
        if not waiting or sending.deadline >= waiting[-1].deadline:
            waiting.append(sending)
        else:
            insort(waiting, sending, key=_deadline)
        if self._timer is None or sending.deadline < self._timer.when():
            self._set_timer()

    def tidy(self) -> None:
        """Let go of messages that have been settled."""
        waiting, in_flight = self._waiting, self._in_flight
        while waiting and waiting[0].delivery.done and waiting[0] not in in_flight:
            waiting.popleft()

    def cancel(self) -> None:
        """Call back for nothing any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._waiting[0].deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        waiting, now = self._waiting, self._loop.time()
        self.tidy()
        while waiting and waiting[0].deadline <= now:
            self._on_expired(waiting.popleft())
            self.tidy()
        if waiting and self._timer is None:
            self._set_timer()
