"""The messages that a session sends: their order, deadlines and retries, whatever the broker is."""

from __future__ import annotations

import asyncio
from itertools import count

from ..errors import ClientClosed
from ..wire.message import OutgoingMessage
from .completion import Completion
from .preparation import Preparation
from .publishing import Publisher, Sending
from .pump import Pump
from .receiving import Receiver, ResultStore
from .unsettled import Unsettled

__all__ = ["Outbox"]


class Outbox:
    """Hands messages to a publisher, in the order of :meth:`send`, and settles each of them once.

    A message that is lost with its connection is published again, before those that came after it,
    as its retry policy says; otherwise its outcome is reported as unknown.

    What can be published at once is published in the next turn of the event loop, with all else
    that can. As soon as one message must wait for something, such as a connection or a declaration,
    a task takes over until nothing has to be waited for.

    :param store: where what a message requires is written before it goes, if anything does.
    :param max_in_flight: how many messages may be published without an answer.
    """

    def __init__(
        self,
        publisher: Publisher,
        store: ResultStore | None,
        loop: asyncio.AbstractEventLoop,
        *,
        max_in_flight: int,
    ) -> None:
        self._publisher = publisher
        self._loop = loop
        self._max_in_flight = max_in_flight
        self._numbers = count()
        self._unsettled = Unsettled(publisher, loop, self._schedule)
        self._pump = Pump(
            publisher,
            Preparation(publisher, store),
            self._unsettled,
            loop,
            max_in_flight=max_in_flight,
            on_stopped=self._schedule,
        )
        self._turn: asyncio.Handle | None = None
        self._closed = False

    @property
    def queued(self) -> int:
        """How many messages have not been settled."""
        return sum(not each.delivery.done for each in self._unsettled)

    @property
    def in_flight(self) -> int:
        """How many messages were published, and not answered."""
        return len(self._unsettled.in_flight)

    def send(
        self,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        receiver: Receiver | None = None,
    ) -> None:
        """Take a message, to be sent as soon as that can be done.

        :param delivery: completed when the broker has the message, or failed with a
            :class:`bridgetask.errors.SendError`.
        :param deadline: the loop's time by which it must have been settled.
        :param receiver: what will be answered. It is prepared before the message goes; what that
            raises counts as a failed attempt.
        """
        if self._closed:  # in another thread, while this message was built
            delivery.complete(ClientClosed("the client was closed"))
            return
        if message.timeout is not None:
            deadline = min(deadline, self._loop.time() + message.timeout)
        self._unsettled.add(Sending(next(self._numbers), message, delivery, deadline, receiver))

    async def connect(self) -> None:
        """Connect now. Raises what a message would have failed with."""
        await self._publisher.connect()

    async def drain(self) -> None:
        """Return when every message that was taken has been settled."""
        while waiting := [each for each in self._unsettled if not each.delivery.done]:
            for sending in waiting:
                await sending.settled()

    async def close(self) -> None:
        """Disconnect. Messages that are not settled fail."""
        self._end()
        if self._pump.task is not None:
            await asyncio.wait([self._pump.task])
        await self._publisher.close()

    def abort(self) -> None:
        """Drop the connection on the spot, with no goodbye. Messages that are not settled fail."""
        self._end()
        self._publisher.abort()

    def _end(self) -> None:
        """Publish nothing more."""
        self._closed = True
        self._publisher.retire()
        if self._turn is not None:
            self._turn.cancel()
        self._unsettled.abandon()
        if self._pump.task is not None:
            self._pump.task.cancel()

    def _schedule(self) -> None:
        """See to it that the queue is looked at, unless that is about to happen."""
        if self._turn is None and self._pump.task is None and not self._closed:
            self._turn = self._loop.call_soon(self._publish_at_once)

    def _publish_at_once(self) -> None:
        """Publish what can be published in this turn of the event loop."""
        self._turn = None
        publisher, pump, unsettled = self._publisher, self._pump, self._unsettled
        queue = unsettled.queue
        left, blocked = publisher.per_turn, publisher.blocked is not None
        while queue:
            sending = queue[0]
            if sending.delivery.done:
                queue.popleft()
            elif blocked or pump.must_take(sending):
                self._start_pump()
                break
            elif len(unsettled.in_flight) >= self._max_in_flight:
                break
            elif not left:
                self._schedule()
                break
            else:
                left -= 1
                unsettled.publish(queue.popleft())
        publisher.flush()

    def _start_pump(self) -> None:
        if self._turn is not None:  # because of a message that was answered at once
            self._turn.cancel()
            self._turn = None
        self._pump.start()
