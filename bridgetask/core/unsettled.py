"""Messages between the call and what becomes of them."""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from ..errors import BridgetaskError, ClientClosed, InvalidOption, NotSent, SendTimeout, Unconfirmed
from .aside import Aside
from .deadlines import Deadlines
from .publishing import ClosedOver, ConnectionLost, Publisher, Sending, TurnedAway, error_of

__all__ = ["Unsettled"]

logger: logging.Logger = logging.getLogger(__name__)


class Unsettled:
    """The messages of an outbox, from when they are taken until it is told what became of them.

    Each waits in the queue, waits aside, or was published and has no answer yet. Each is settled
    once, by its answer or at its deadline at the latest.

    :param on_change: called when there may be something to publish: a message in the queue, or room
        for those that are there.
    """

    def __init__(
        self, publisher: Publisher, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
    ) -> None:
        self._publisher = publisher
        self._on_change = on_change
        #: Those that wait for their turn, in the order in which they were taken.
        self.queue: deque[Sending] = deque()
        #: Those that were published, and have no answer yet.
        self.in_flight: set[Sending] = set()
        #: Those that wait for the result backend to come back.
        self.aside: Aside = Aside(loop, self.put_back)
        self._deadlines = Deadlines(loop, self._expire, self.in_flight)
        self._changed = asyncio.Event()
        publisher.start(self._answered)

    def __iter__(self) -> Iterator[Sending]:
        """Yield all of them, and some that were settled meanwhile."""
        return chain(self.queue, self.aside, self.in_flight)

    def add(self, sending: Sending) -> None:
        """Take a message. It comes after all others."""
        self._deadlines.add(sending)
        self.queue.append(sending)
        self._on_change()

    def put_back(self, sending: Sending) -> None:
        """Let a message go again, in its place."""
        if not self.queue or sending < self.queue[0]:
            self.queue.appendleft(sending)
        else:
            insort(self.queue, sending)
        self._changed.set()
        self._on_change()

    async def change(self) -> None:
        """Return when a message is settled or put back next."""
        self._changed.clear()
        await self._changed.wait()

    def publish(self, sending: Sending) -> None:
        """Publish a message, which is not in the queue any more."""
        sending.unanswered += 1
        sending.delivery.left = True
        self.in_flight.add(sending)
        try:
            self._publisher.publish(sending)
        except InvalidOption as error:
            self._answered(sending, error)
        except Exception as error:  # whatever it is, it may not take others with it
            logger.exception("A message could not be sent")
            self._answered(sending, NotSent(f"unexpected {error!r}"))

    def _answered(self, sending: Sending, error: BridgetaskError | None) -> None:
        """Take note of what became of a message that was published."""
        self.in_flight.discard(sending)
        lost = isinstance(error, (ConnectionLost, Unconfirmed, ClosedOver))
        if not lost or isinstance(error, TurnedAway):
            sending.unanswered -= 1
        if error is not None and lost:
            self._lost(sending, error)
        else:
            self.settle(sending, error)
        if self.queue:
            self._on_change()

    def _lost(self, sending: Sending, error: BridgetaskError) -> None:
        """Decide what becomes of a message whose channel went away before its answer."""
        sending.last_error = error
        if isinstance(error, ClosedOver) and sending.alone:
            sending.unanswered = 0  # what is refused now was refused before
            self.settle(sending, error)
        elif sending.delivery.done or not sending.may_retry:
            self.settle(sending, error)
        else:
            if isinstance(error, ClosedOver):
                # One of those on their way was refused. They go again one by one, to tell which.
                sending.alone = True
            else:
                sending.retries += 1
            self.put_back(sending)

    def _expire(self, sending: Sending) -> None:
        """Give up on a message whose deadline has passed."""
        if sending in self.in_flight:
            self._publisher.forget(sending)
            self.in_flight.discard(sending)
            self._on_change()
        blocked = self._publisher.blocked
        if blocked is not None:
            why: BridgetaskError = SendTimeout(blocked)
        else:
            why = sending.last_error or SendTimeout("the deadline passed before it could be sent")
        self.settle(sending, why)

    def settle(self, sending: Sending, error: BridgetaskError | None) -> None:
        """Tell those who wait what became of a message, once."""
        self._changed.set()
        if not sending.delivery.done:  # a worker may have answered before the broker did
            if error is not None:
                error = error_of(sending.message, error, may_be_there=sending.unanswered > 0)
            sending.delivery.complete(error)
        self._deadlines.tidy()

    def abandon(self) -> None:
        """Settle all of them: the client is closed. None may be added from now on."""
        self._deadlines.cancel()
        for sending in list(self):
            reason: BridgetaskError = (
                Unconfirmed("the client was closed before the broker confirmed")
                if sending.unanswered
                else ClientClosed("the client was closed before the message was sent")
            )
            self.settle(sending, reason)
        self.queue.clear()
        self.aside.cancel()
