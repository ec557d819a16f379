"""The messages that a session sends: their order, deadlines and retries, whatever the broker is."""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections import deque
from itertools import count
from typing import cast

from ..errors import (
    BackendError,
    BackendUnreachable,
    BridgetaskError,
    BrokerUnreachable,
    ClientClosed,
    InvalidOption,
    NotSent,
    SendError,
    SendTimeout,
    Unconfirmed,
)
from ..retry import RetryPolicy
from ..wire.message import OutgoingMessage
from .completion import Completion
from .deadlines import Deadlines
from .preparation import Preparation
from .publishing import (
    ClosedOver,
    ConnectionLost,
    Publisher,
    Sending,
    TurnedAway,
    error_of,
)
from .receiving import Receiver, ResultStore

__all__ = ["Outbox"]

logger: logging.Logger = logging.getLogger(__name__)


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
        self._queue: deque[Sending] = deque()
        self._in_flight: set[Sending] = set()
        #: Messages that wait for the result backend to come back.
        self._aside: set[Sending] = set()
        self._preparation = Preparation(publisher, store)
        self._settled = asyncio.Event()
        self._deadlines = Deadlines(loop, self._expire, self._in_flight)
        self._turn: asyncio.Handle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        publisher.start(self._answered)

    @property
    def queued(self) -> int:
        """How many messages have not been settled."""
        return sum(not each.delivery.done for each in self._unsettled())

    @property
    def in_flight(self) -> int:
        """How many messages were published, and not answered."""
        return len(self._in_flight)

    def _unsettled(self) -> list[Sending]:
        return [*self._queue, *self._aside, *self._in_flight]

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
        sending = Sending(next(self._numbers), message, delivery, deadline, receiver)
        self._deadlines.add(sending)
        self._queue.append(sending)
        self._schedule()

    async def connect(self) -> None:
        """Connect now. Raises what a message would have failed with."""
        await self._publisher.connect()

    async def drain(self) -> None:
        """Return when every message that was taken has been settled."""
        for sending in self._unsettled():
            sending.delivery.then(self._settled.set)  # its result may come before its confirm
        while self.queued:
            await self._something_settled()

    async def close(self) -> None:
        """Disconnect. Messages that are not settled fail."""
        self._abandon()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        await self._publisher.close()

    def abort(self) -> None:
        """Drop the connection on the spot, with no goodbye. Messages that are not settled fail."""
        self._abandon()
        if self._pump is not None:
            self._pump.cancel()
        self._publisher.abort()

    # Turns: what is published at once.

    def _schedule(self) -> None:
        """See to it that the queue is looked at, unless that is about to happen."""
        if self._turn is None and self._pump is None and not self._closed:
            self._turn = self._loop.call_soon(self._publish_at_once)

    def _publish_at_once(self) -> None:
        self._turn = None
        publisher = self._publisher
        left, blocked = publisher.per_turn, publisher.blocked is not None
        while self._queue:
            sending = self._queue[0]
            if sending.delivery.done:
                self._queue.popleft()
            elif blocked or not self._is_small(sending) or not self._preparation.is_done(sending):
                self._pump = self._loop.create_task(self._run(), name="bridgetask outbox")
                break
            elif len(self._in_flight) >= self._max_in_flight:
                break
            elif not left:
                self._schedule()
                break
            else:
                left -= 1
                self._publish(self._queue.popleft())
        publisher.flush()

    def _is_small(self, sending: Sending) -> bool:
        """Tell whether a message can be published with others in one turn."""
        return not sending.alone and len(sending.message.body) < self._publisher.large

    def _publish(self, sending: Sending) -> None:
        sending.unanswered += 1
        sending.delivery.left = True
        self._in_flight.add(sending)
        try:
            self._publisher.publish(sending)
        except InvalidOption as error:
            self._answered(sending, error)
        except Exception as error:  # whatever it is, it may not take others with it
            logger.exception("A message could not be sent")
            self._answered(sending, NotSent(f"unexpected {error!r}"))

    # The pump: a task that runs while messages have to wait.

    async def _run(self) -> None:
        try:
            while self._queue:
                sending = self._queue[0]
                if sending.delivery.done:
                    self._queue.popleft()
                elif (
                    self._publisher.blocked is None
                    and self._is_small(sending)
                    and self._preparation.is_done(sending)
                ):
                    break
                elif await self._prepare(sending):
                    await self._publish_in_time(sending)
        finally:
            self._pump = None
            self._schedule()

    async def _prepare(self, sending: Sending) -> bool:
        """Do all that must precede a message; return whether that succeeded, and still holds."""
        stood = self._publisher.is_open
        try:
            await self._preparation.make(sending, self._queue[-1].number)
        except BrokerUnreachable as error:
            # A lost connection counts for those that were on their way, and for nobody else.
            if not stood or self._publisher.is_open:
                await self._back_off(sending, error)
            return False
        except BackendUnreachable as error:
            self._put_aside(sending, error)
            return False
        except BridgetaskError as error:
            self._settle(sending, error)
            return False
        except Exception as error:  # whatever it is, it may not take others with it
            logger.exception("A message could not be sent")
            self._settle(sending, NotSent(f"unexpected {error!r}"))
            return False
        return self._preparation.lets_answers_in(sending)  # the receiver may have been lost

    async def _publish_in_time(self, sending: Sending) -> None:
        """Publish a message when its turn has come, and wait until the socket has taken it."""
        alone = sending.alone or len(sending.message.body) >= self._publisher.alone
        if alone:
            await self._in_flight_settled()
        while len(self._in_flight) >= self._max_in_flight:
            await self._something_settled()
        if not self._publisher.ready(sending.message) or self._queue[0] is not sending:
            return
        self._queue.popleft()
        if sending.delivery.done:
            return
        sending.alone = alone
        self._publish(sending)
        if self._is_small(sending):
            self._publisher.flush()
        else:
            await self._publisher.drain()
        if alone:
            await self._in_flight_settled()

    async def _back_off(self, failed: Sending, error: BridgetaskError) -> None:
        """Count a failed attempt for all that wait, and wait before the next."""
        retries = failed.retries
        for sending in list(self._queue):
            self._count_failure(sending, error)
        policy = failed.message.retry
        if policy is not None and not failed.delivery.done:
            logger.warning("Can't send: %s. Trying again", error)
            await asyncio.sleep(policy.interval(retries))

    def _count_failure(self, sending: Sending, error: BridgetaskError) -> None:
        """Fail a message that has no retries left."""
        sending.last_error = error
        if sending.message.retry is None or not sending.message.retry.allows(sending.retries):
            self._settle(sending, error)
        else:
            sending.retries += 1

    def _put_aside(self, failed: Sending, error: BridgetaskError) -> None:
        """Let those go first that need nothing of the result backend, which is not there."""
        queued, self._queue = self._queue, deque()
        for sending in queued:
            if sending.receiver is not failed.receiver and not sending.message.requires:
                self._queue.append(sending)
                continue
            self._count_failure(sending, error)
            if not sending.delivery.done:
                policy = cast(RetryPolicy, sending.message.retry)
                self._aside.add(sending)
                self._loop.call_later(policy.interval(sending.retries - 1), self._resume, sending)

    def _resume(self, sending: Sending) -> None:
        self._aside.discard(sending)
        if not sending.delivery.done:
            self._put_back(sending)

    # Messages on their way.

    def _answered(self, sending: Sending, error: BridgetaskError | None) -> None:
        """Take note of what became of a message that was published."""
        self._in_flight.discard(sending)
        if not isinstance(error, (ConnectionLost, Unconfirmed, ClosedOver)):
            sending.unanswered -= 1
            self._settle(sending, error)
        else:
            if isinstance(error, TurnedAway):
                sending.unanswered -= 1
            self._lost(sending, error)
        if self._queue:
            self._schedule()

    def _lost(self, sending: Sending, error: BridgetaskError) -> None:
        """Decide what becomes of a message whose channel went away before its answer."""
        sending.last_error = error
        policy = sending.message.retry
        if sending.delivery.done:
            self._settle(sending, error)
        elif isinstance(error, ClosedOver) and sending.alone:
            sending.unanswered = 0  # what is refused now was refused before
            self._settle(sending, error)
        elif policy is None or not policy.allows(sending.retries):
            self._settle(sending, error)
        else:
            if isinstance(error, ClosedOver):
                # One of those on their way was refused. They go again one by one, to tell which.
                sending.alone = True
            else:
                sending.retries += 1
            self._put_back(sending)

    def _put_back(self, sending: Sending) -> None:
        """Let a message go again, in its place."""
        if not self._queue or sending < self._queue[0]:
            self._queue.appendleft(sending)
        else:
            insort(self._queue, sending)
        self._settled.set()
        self._schedule()

    def _expire(self, sending: Sending) -> None:
        """Give up on a message whose deadline has passed."""
        if sending in self._in_flight:
            self._publisher.forget(sending)
            self._in_flight.discard(sending)
            self._schedule()
        blocked = self._publisher.blocked
        if blocked is not None:
            why: BridgetaskError = SendTimeout(blocked)
        else:
            why = sending.last_error or SendTimeout("the deadline passed before it could be sent")
        self._settle(sending, why)

    def _settle(self, sending: Sending, error: BridgetaskError | None) -> None:
        """Tell those who wait what became of the message, once."""
        self._settled.set()
        if not sending.delivery.done:  # a worker may have answered before the broker did
            if isinstance(error, (BackendError, SendError)):
                error = error_of(sending.message, error, may_be_there=sending.unanswered > 0)
            sending.delivery.complete(error)
        self._deadlines.tidy()

    def _abandon(self) -> None:
        self._closed = True
        self._publisher.retire()
        self._deadlines.cancel()
        for sending in self._unsettled():
            reason: BridgetaskError = (
                Unconfirmed("the client was closed before the broker confirmed")
                if sending.unanswered
                else ClientClosed("the client was closed before the message was sent")
            )
            self._settle(sending, reason)
        self._queue.clear()

    async def _something_settled(self) -> None:
        self._settled.clear()
        await self._settled.wait()

    async def _in_flight_settled(self) -> None:
        while self._in_flight:
            await self._something_settled()
