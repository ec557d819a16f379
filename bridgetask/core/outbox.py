"""Publishing to RabbitMQ: in order, pipelined, confirmed, and retried as Celery's policy says."""

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
    Refused,
    SendError,
    SendTimeout,
    Unconfirmed,
)
from ..retry import RetryPolicy
from ..transports.amqp.channel import PublishingChannel as Publisher
from ..transports.amqp.connection import AmqpConnection
from ..transports.amqp.errors import ConnectionLost, about
from ..transports.amqp.plain import Sending
from ..wire.message import Declaration, OutgoingMessage
from .completion import Completion
from .deadlines import Deadlines
from .protocols import Receiver, ResultStore

__all__ = ["AmqpSender"]

logger: logging.Logger = logging.getLogger(__name__)

#: How many sets of declarations are remembered as made.
_REMEMBERED = 1024


class AmqpSender:
    """Publishes messages over one connection and one channel with confirms.

    Messages go out in the order of :meth:`send`. One that is lost with its connection goes out
    again, before those that came after it, or its outcome is reported as unknown.

    What can go at once goes in the next turn of the event loop, with all else that can. As soon as
    one message must wait for something, such as a connection or a declaration, a task takes over
    until nothing has to be waited for.

    :param store: where what a message requires is written before it goes, if anything does.
    :param max_in_flight: how many messages may be on their way without a confirm.
    """

    def __init__(
        self,
        connection: AmqpConnection,
        store: ResultStore | None,
        loop: asyncio.AbstractEventLoop,
        *,
        max_in_flight: int,
    ) -> None:
        self._connection = connection
        self._store = store
        self._loop = loop
        self._max_in_flight = max_in_flight
        self._numbers = count()
        self._queue: deque[Sending] = deque()
        self._in_flight: set[Sending] = set()
        #: Messages that wait for the result backend to come back.
        self._aside: set[Sending] = set()
        #: What was prepared last, and the last message that it was prepared for.
        self._prepared: tuple[Receiver | None, int] = None, -1
        self._settled = asyncio.Event()
        self._deadlines = Deadlines(loop, self._expire, self._in_flight)
        self._turn: asyncio.Handle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._publisher: Publisher | None = None
        self._opening = asyncio.Lock()
        #: What is known to exist on the connection: tuples of declarations by their ids.
        self._declared: dict[int, tuple[Declaration, ...]] = {}
        self._known_exchanges: set[str] = {""}
        self._closed = False

    @property
    def queued(self) -> int:
        return sum(not each.delivery.done for each in self._unsettled())

    def _unsettled(self) -> list[Sending]:
        return [*self._queue, *self._aside, *self._in_flight]

    def send(
        self,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        receiver: Receiver | None = None,
    ) -> None:
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
        await self._open_channel()

    async def drain(self) -> None:
        for sending in self._unsettled():
            sending.delivery.then(self._settled.set)  # its result may come before its confirm
        while self.queued:
            await self._something_settled()

    async def close(self) -> None:
        self._abandon()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        await self._connection.close()

    def abort(self) -> None:
        self._abandon()
        if self._pump is not None:
            self._pump.cancel()
        self._connection.abort()

    # Turns: what goes out at once.

    def _schedule(self) -> None:
        """See to it that the queue is looked at, unless that is about to happen."""
        if self._turn is None and self._pump is None and not self._closed:
            self._turn = self._loop.call_soon(self._send_at_once)

    def _send_at_once(self) -> None:
        self._turn = None
        publisher = self._publisher if not self._connection.is_blocked else None
        left = publisher.per_turn if publisher is not None else 0
        while self._queue:
            sending = self._queue[0]
            if sending.delivery.done:
                self._queue.popleft()
            elif publisher is None or not self._is_prepared(sending) or not sending.small:
                self._pump = self._loop.create_task(self._run(), name="bridgetask sender")
                break
            elif len(self._in_flight) >= self._max_in_flight:
                break
            elif not left:
                self._schedule()
                break
            else:
                left -= 1
                self._publish(publisher, self._queue.popleft())
        if publisher is not None:
            publisher.flush()

    def _is_prepared(self, sending: Sending) -> bool:
        """Tell whether all that must precede a message has been done."""
        message = sending.message
        return (
            self._publisher is not None
            and not self._publisher.is_closed
            and not message.requires
            and self._can_be_answered(sending)
            and self._declared.get(id(message.declarations)) is message.declarations
            and message.exchange in self._known_exchanges
        )

    def _can_be_answered(self, sending: Sending) -> bool:
        receiver = sending.receiver
        if receiver is None or receiver.ready:
            return True
        prepared, newest = self._prepared
        return receiver is prepared and sending.number <= newest

    def _publish(self, publisher: Publisher, sending: Sending) -> None:
        sending.unanswered += 1
        sending.delivery.left = True
        self._in_flight.add(sending)
        try:
            publisher.publish(sending)
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
                    sending.small and not self._connection.is_blocked and self._is_prepared(sending)
                ):
                    break
                elif await self._prepare(sending):
                    await self._send_in_time(sending)
        finally:
            self._pump = None
            self._schedule()

    async def _prepare(self, sending: Sending) -> bool:
        """Do all that must precede a message; return whether that succeeded, and still holds."""
        message = sending.message
        stood = self._connection.is_open
        try:
            await self._prepare_receiver(sending)
            await self._open_channel()
            await self._connection.unblocked()
            for declaration in message.declarations:
                await self._connection.declare(declaration)
            await self._check_exchange(message)
        except BrokerUnreachable as error:
            # That it was lost counts for those that were on their way, and for nobody else.
            if not stood or self._connection.is_open:
                await self._back_off(sending, error)
            return False
        except BackendUnreachable as error:
            self._put_aside(sending, error)
            return False
        except BridgetaskError as error:
            self._settle(sending, error)
            return False
        except (TypeError, ValueError) as error:
            self._settle(sending, InvalidOption("queue", f"can't be declared: {error}"))
            return False
        except Exception as error:  # whatever it is, it may not take others with it
            logger.exception("A message could not be sent")
            self._settle(sending, NotSent(f"unexpected {error!r}"))
            return False
        if len(self._declared) >= _REMEMBERED:
            self._declared.clear()
        self._declared[id(message.declarations)] = message.declarations
        return self._can_be_answered(sending)  # the receiver may have been lost meanwhile

    async def _prepare_receiver(self, sending: Sending) -> None:
        """Return when no answer can be missed, and all that the message requires is stored."""
        if sending.receiver is not None and not self._can_be_answered(sending):
            newest = self._queue[-1].number
            await sending.receiver.prepare()
            self._prepared = sending.receiver, newest
        message = sending.message
        if message.requires and self._store is not None:
            await self._store.write(message.requires)
            message.requires = ()  # a message that goes again must not undo what followed it

    async def _send_in_time(self, sending: Sending) -> None:
        """Send a message when its time has come, and wait until the socket has taken it."""
        if sending.alone:
            await self._in_flight_settled()
        while len(self._in_flight) >= self._max_in_flight:
            await self._something_settled()
        publisher = self._publisher
        if publisher is None or publisher.is_closed or self._queue[0] is not sending:
            return
        self._queue.popleft()
        if sending.delivery.done:
            return
        self._publish(publisher, sending)
        if sending.small:
            publisher.flush()
        else:
            await publisher.drain()
        if sending.alone:
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

    async def _open_channel(self) -> None:
        """Open a channel to publish on. It replaces an old one only when that is settled."""
        async with self._opening:  # the pump and connect() may both be here
            if self._publisher is None or self._publisher.is_closed:
                await self._in_flight_settled()
                self._declared.clear()
                self._known_exchanges = {""}
                self._publisher = await self._connection.publisher(self._answered)

    async def _check_exchange(self, message: OutgoingMessage) -> None:
        """Make sure that an exchange that nobody declared exists.

        Publishing to a missing one closes the channel, under all that is on its way.
        """
        name = message.exchange
        if name in self._known_exchanges:
            return
        declared = any(
            each.operation == "exchange_declare" and each.name == name
            for each in message.declarations
        )
        if not declared:
            await self._connection.declare(
                Declaration.of("exchange_declare", name, {"type": "direct", "passive": True})
            )
        self._known_exchanges.add(name)

    # Messages on their way.

    def _answered(self, sending: Sending, error: BridgetaskError | None) -> None:
        """Take note of what became of a message that was published."""
        self._in_flight.discard(sending)
        if isinstance(error, (ConnectionLost, Unconfirmed)) or _closed_the_channel(error):
            assert error is not None
            self._lost(sending, error)
        else:
            sending.unanswered -= 1
            self._settle(sending, error)
        if self._queue:
            self._schedule()

    def _lost(self, sending: Sending, error: BridgetaskError) -> None:
        """Decide what becomes of a message whose channel went away before its confirm."""
        sending.last_error = error
        policy = sending.message.retry
        if sending.delivery.done:
            self._settle(sending, error)
        elif isinstance(error, Refused) and sending.alone:
            sending.unanswered = 0  # what is refused now was refused before
            self._settle(sending, error)
        elif policy is None or not policy.allows(sending.retries):
            self._settle(sending, error)
        else:
            if isinstance(error, Refused):
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
            assert self._publisher is not None
            self._publisher.forget(sending)
            self._in_flight.discard(sending)
            self._schedule()
        if self._connection.is_blocked:
            why: BridgetaskError = SendTimeout("the broker is blocked: out of memory or disk space")
        else:
            why = sending.last_error or SendTimeout("the deadline passed before it could be sent")
        self._settle(sending, why)

    def _settle(self, sending: Sending, error: BridgetaskError | None) -> None:
        """Tell whoever waits what became of the message, once."""
        self._settled.set()
        if not sending.delivery.done:  # a worker may have answered before the broker did
            if isinstance(error, (BackendError, SendError)):
                error = about(sending.message, error, may_be_there=sending.unanswered > 0)
            sending.delivery.complete(error)
        self._deadlines.tidy()

    def _abandon(self) -> None:
        self._closed = True
        self._connection.retire()
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


def _closed_the_channel(error: Exception | None) -> bool:
    return isinstance(error, Refused) and error.code is not None
