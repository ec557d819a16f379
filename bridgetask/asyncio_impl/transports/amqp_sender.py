"""Publishing to RabbitMQ: in order, pipelined, confirmed, and retried as Celery's policy says."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import cast

import aiormq
from aiormq import spec

from ...errors import (
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
from ...wire.message import Declaration, OutgoingMessage
from ..completion import Completion
from .amqp_connection import AmqpConnection
from .amqp_errors import ConnectionLost, translating

__all__ = ["AmqpSender"]

logger: logging.Logger = logging.getLogger(__name__)

#: How many messages may be on their way without a confirm.
_WINDOW = 128
#: How many messages go out in one turn of the event loop. Each takes about 0.1 ms of it.
_PER_TURN = 8
#: Bytes from which on a message is flushed to the socket before the next one is written.
_FLUSHED = 65_536
#: Bytes from which on a message goes alone. RabbitMQ 4 refuses what is larger than 16 MiB, by
#: closing the channel under everything that is on its way.
_ALONE = 16 * 1024 * 1024


class _Sending:
    """A message on its way."""

    __slots__ = (
        "alone",
        "delivery",
        "expiry",
        "last_error",
        "message",
        "number",
        "prepare",
        "retries",
        "task",
        "unanswered",
    )

    def __init__(
        self,
        number: int,
        message: OutgoingMessage,
        delivery: Completion,
        prepare: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.number = number
        self.message = message
        self.delivery = delivery
        self.prepare = prepare
        self.expiry: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        #: How many times it left without an answer so far. Each may have reached the broker.
        self.unanswered = 0
        #: Whether it must be the only one on its way, so that a refusal is known to be its own.
        self.alone = len(message.body) >= _ALONE
        self.retries = 0
        self.last_error: BridgetaskError | None = None

    def __lt__(self, other: _Sending) -> bool:
        return self.number < other.number


class AmqpSender:
    """Publishes messages over one connection and one channel with confirms.

    Messages go out in the order of :meth:`send`. One that is lost with its connection goes out
    again, before those that came after it, or its outcome is reported as unknown.
    """

    def __init__(self, connection: AmqpConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._numbers = count()
        self._queue: list[_Sending] = []
        self._attempted: _Sending | None = None  # neither queued nor on its way
        self._in_flight: set[_Sending] = set()
        self._window = asyncio.Semaphore(_WINDOW)
        self._settled = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._channel: aiormq.Channel | None = None
        self._known_exchanges: set[str] = {""}
        self._closed = False

    @property
    def queued(self) -> int:
        return sum(not each.delivery.done for each in self._unsettled())

    def _unsettled(self) -> set[_Sending]:
        attempted = () if self._attempted is None else (self._attempted,)
        return {*self._queue, *self._in_flight, *attempted}

    def send(
        self,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if message.timeout is not None:
            deadline = min(deadline, self._loop.time() + message.timeout)
        sending = _Sending(next(self._numbers), message, delivery, prepare)
        sending.expiry = self._loop.call_at(deadline, self._expire, sending)
        self._enqueue(sending)

    async def connect(self) -> None:
        await self._open_channel()

    async def drain(self) -> None:
        while self.queued:
            self._settled.clear()
            await self._settled.wait()

    async def close(self) -> None:
        self._abandon()
        tasks = self._cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._connection.close()

    def abort(self) -> None:
        self._abandon()
        self._cancel()
        self._connection.abort()

    def _cancel(self) -> list[asyncio.Task[None]]:
        tasks = [self._pump, *(each.task for each in self._in_flight)]
        running = [task for task in tasks if task is not None and not task.done()]
        for task in running:
            task.cancel()
        return running

    # The pump: one task that takes messages from the queue while there are any.

    def _enqueue(self, sending: _Sending) -> None:
        heapq.heappush(self._queue, sending)
        if self._pump is None and not self._closed:
            self._pump = self._loop.create_task(self._run(), name="bridgetask sender")

    async def _run(self) -> None:
        try:
            while self._queue:
                sending = heapq.heappop(self._queue)
                if sending.delivery.done:
                    continue
                self._attempted = sending
                try:
                    if sending.number % _PER_TURN == 0:
                        await asyncio.sleep(0)
                    await self._attempt(sending)
                except Exception as error:  # whatever it is, it may not take others with it
                    logger.exception("A message could not be sent")
                    self._settle(sending, NotSent(f"unexpected {error!r}"))
                finally:
                    self._attempted = None
        finally:
            self._pump = None  # in the same step that found the queue empty

    async def _attempt(self, sending: _Sending) -> None:
        """Bring one message on its way, or take note of why that failed."""
        try:
            if sending.prepare is not None:
                await sending.prepare()
            channel = await self._open_channel()
            await self._connection.unblocked()
            for declaration in sending.message.declarations:
                await self._connection.declare(declaration)
            await self._check_exchange(sending.message)
        except BrokerUnreachable as error:
            # For now nobody can be served: put it back, with its place in the order.
            heapq.heappush(self._queue, sending)
            await self._back_off(sending, error)
            return
        except BridgetaskError as error:
            self._settle(sending, error)
            return
        except (TypeError, ValueError) as error:
            self._settle(sending, InvalidOption("queue", f"can't be declared: {error}"))
            return
        if sending.alone or any(each.alone for each in self._in_flight):
            await self._in_flight_settled()
        await self._window.acquire()
        if sending.delivery.done or channel.is_closed:
            self._window.release()
            if not sending.delivery.done:
                heapq.heappush(self._queue, sending)
            return
        sending.unanswered += 1
        self._in_flight.add(sending)
        sending.task = self._loop.create_task(self._publish(channel, sending))

    async def _back_off(self, failed: _Sending, error: BridgetaskError) -> None:
        """Count a failed attempt for all that wait, and wait before the next."""
        retries = failed.retries
        for sending in list(self._queue):
            sending.last_error = error
            if sending.message.retry is None or not sending.message.retry.allows(sending.retries):
                self._settle(sending, error)
            else:
                sending.retries += 1
        policy = failed.message.retry
        if policy is not None and not failed.delivery.done:
            logger.warning("Can't send: %s. Trying again", error)
            await asyncio.sleep(policy.interval(retries))

    async def _open_channel(self) -> aiormq.Channel:
        """Return the channel to publish on. A new one is used only when the old one is settled."""
        if self._channel is None or self._channel.is_closed or not self._connection.is_open:
            await self._in_flight_settled()
            channel = await self._connection.channel(confirms=True)
            self._channel = cast(aiormq.Channel, await channel.get_underlay_channel())
            self._known_exchanges = {""}
        return self._channel

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

    async def _publish(self, channel: aiormq.Channel, sending: _Sending) -> None:
        message = sending.message
        error: Exception | None = None
        try:
            with translating():
                await channel.basic_publish(
                    message.body,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    properties=_Properties(message),
                    mandatory=message.mandatory,
                    wait=len(message.body) >= _FLUSHED,
                )
        except BridgetaskError as reason:
            error = reason
        except Exception as reason:
            logger.exception("Publishing failed")
            error = Unconfirmed(f"unexpected {reason!r}")
        finally:
            self._in_flight.discard(sending)
            self._window.release()
            self._settled.set()
        if isinstance(error, (ConnectionLost, Unconfirmed)) or _closed_the_channel(error):
            self._lost(sending, cast(BridgetaskError, error))
        else:
            sending.unanswered -= 1
            self._settle(sending, error)

    def _lost(self, sending: _Sending, error: BridgetaskError) -> None:
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
            self._enqueue(sending)

    def _expire(self, sending: _Sending) -> None:
        """Give up on a message whose deadline has passed."""
        if sending.delivery.done:
            return
        if self._connection.is_blocked:
            why: BridgetaskError = SendTimeout("the broker is blocked: out of memory or disk space")
        else:
            why = sending.last_error or SendTimeout("the deadline passed before it could be sent")
        self._settle(sending, why)
        if sending.task is not None:
            sending.task.cancel()

    def _settle(self, sending: _Sending, error: Exception | None) -> None:
        """Tell whoever waits what became of the message, once."""
        if sending.expiry is not None:
            sending.expiry.cancel()
        self._settled.set()
        if sending.delivery.done:
            return  # a worker answered before the broker did, or in its place
        if isinstance(error, SendError):
            error = _about(sending.message, error, may_be_there=sending.unanswered > 0)
        sending.delivery.complete(error)

    def _abandon(self) -> None:
        self._closed = True
        for sending in self._unsettled():
            reason = (
                Unconfirmed("the client was closed before the broker confirmed")
                if sending.unanswered
                else ClientClosed("the client was closed before the message was sent")
            )
            self._settle(sending, reason)
        self._queue.clear()

    async def _in_flight_settled(self) -> None:
        tasks = [each.task for each in self._in_flight if each.task is not None]
        if tasks:
            await asyncio.wait(tasks)


def _closed_the_channel(error: Exception | None) -> bool:
    return isinstance(error, Refused) and error.code is not None


class _Properties(spec.Basic.Properties):
    """A message's properties, as Celery encodes them. aiormq gives each message an id."""

    def __init__(self, message: OutgoingMessage) -> None:
        super().__init__(message_id=message.properties.get("message_id"))
        self._message = message

    def marshal(self) -> bytes:
        return self._message.encode_properties(message_id=self.message_id)


def _about(message: OutgoingMessage, error: SendError, *, may_be_there: bool) -> SendError:
    """Return the error for one message: with its own task id, and unknown if it may be there."""
    task = f"task {message.task_id}" if message.task_id else "message"
    if may_be_there:
        about: SendError = Unconfirmed(
            f"{task} may or may not have been sent: no confirm came ({error})"
        )
    elif isinstance(error, ConnectionLost):
        about = BrokerUnreachable(f"{task} was not sent: {error}")
    elif isinstance(error, Refused):
        about = Refused(f"{task} was not sent: {error}", code=error.code)
    else:
        about = type(error)(f"{task} was not sent: {error}")
    about.task_id = message.task_id
    about.__cause__ = error.__cause__
    return about
