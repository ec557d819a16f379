"""What a channel does with messages: publishing with confirms, and receiving with acknowledgements.

There are two ways. This module has the plain one, by aiormq's own methods, which serves wherever
aiormq does. :mod:`amqp_direct` has the fast one, past aiormq, and is what is used unless
``BRIDGETASK_AMQP=plain`` is set in the environment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import aiormq
import aiormq.abc
from aiormq import spec

from ...core.completion import Completion
from ...core.protocols import Receiver
from ...errors import BridgetaskError, Unconfirmed
from ...wire.message import OutgoingMessage, Properties
from .errors import ConnectionLost, translating
from .properties import encode_properties

__all__ = [
    "Deliveries",
    "OnMessage",
    "OnSettled",
    "PlainDeliveries",
    "PlainPublisher",
    "Publisher",
    "Sending",
]

logger: logging.Logger = logging.getLogger(__name__)

#: Bytes from which on a message is flushed to the socket before the next one is written.
_LARGE = 65_536
#: Seconds after which who still hangs on a closed channel is not told of it any more.
_UNTOLD = 0.2
#: Bytes from which on a message goes alone. RabbitMQ 4 refuses what is larger than 16 MiB, by
#: closing the channel under everything that is on its way.
_ALONE = 16 * 1024 * 1024

#: Takes a message. It may not raise.
OnMessage = Callable[[bytes, Properties], None]


class Sending:
    """A message on its way."""

    __slots__ = (
        "alone",
        "deadline",
        "delivery",
        "last_error",
        "message",
        "number",
        "receiver",
        "retries",
        "unanswered",
    )

    def __init__(
        self,
        number: int,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        receiver: Receiver | None,
    ) -> None:
        self.number: int = number
        self.message: OutgoingMessage = message
        self.delivery: Completion = delivery
        #: The loop's time by which it must have been settled.
        self.deadline: float = deadline
        #: What must be ready for the answer before it goes.
        self.receiver: Receiver | None = receiver
        #: How many times it left without an answer so far. Each may have reached the broker.
        self.unanswered: int = 0
        #: Whether it must be the only one on its way, so that a refusal is known to be its own.
        self.alone: bool = len(message.body) >= _ALONE
        self.retries: int = 0
        self.last_error: BridgetaskError | None = None

    @property
    def large(self) -> bool:
        """Whether the socket can't be expected to take it in one go."""
        return len(self.message.body) >= _LARGE

    @property
    def small(self) -> bool:
        """Whether it can go out with others in one go."""
        return not self.alone and not self.large

    def __lt__(self, other: Sending) -> bool:
        return self.number < other.number


#: Told what became of a message: None if the broker has confirmed it.
OnSettled = Callable[[Sending, BridgetaskError | None], None]


class Publisher(Protocol):
    """Publishes on one channel with confirms, in the order in which it is given messages."""

    #: How many messages may be given to it in one turn of the event loop.
    per_turn: int

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be published on it any more."""

    def publish(self, sending: Sending) -> None:
        """Take a message. What becomes of it is told once, unless it is forgotten.

        :raises InvalidOption: it can't be encoded.
        """

    def flush(self) -> None:
        """Write what was published. To be called before the turn of the event loop ends."""

    async def drain(self) -> None:
        """Return when the socket takes more. Nothing may be published meanwhile."""

    def forget(self, sending: Sending) -> None:
        """Do not tell what became of a message, nor hold on to it."""


class Deliveries(Protocol):
    """Receives the messages of one consumer on one channel, and acknowledges them.

    All that come in a turn of the event loop are acknowledged by one frame, once they have been
    handed over.
    """

    async def on_delivery(self, message: aiormq.abc.DeliveredMessage) -> None:
        """Take a message from aiormq: what to give to ``basic_consume``."""

    def stop(self) -> None:
        """Acknowledge nothing more."""


class PlainPublisher:
    """Publishes by aiormq's ``basic_publish``."""

    per_turn: int = 8  # each takes about 0.1 ms

    def __init__(self, channel: aiormq.Channel, on_settled: OnSettled) -> None:
        self._channel = channel
        self._on_settled = on_settled
        self._tasks: dict[Sending, asyncio.Task[None]] = {}
        channel.closing.add_done_callback(self._on_closed)

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    def publish(self, sending: Sending) -> None:
        self._tasks[sending] = asyncio.get_running_loop().create_task(self._publish(sending))

    def flush(self) -> None:
        """Do nothing: aiormq writes on its own."""

    async def drain(self) -> None:
        """Return at once: ``basic_publish`` itself waits, with the channel locked."""

    def forget(self, sending: Sending) -> None:
        task = self._tasks.pop(sending, None)
        if task is not None:
            task.cancel()

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        """Give up on what is on its way, before long.

        aiormq tells those who wait for a confirm, but forgets those who wait to write.
        """
        if not closing.cancelled():
            closing.exception()
        if self._tasks:
            asyncio.get_running_loop().call_later(_UNTOLD, self._give_up)

    def _give_up(self) -> None:
        for sending in list(self._tasks):
            self.forget(sending)
            lost = ConnectionLost("the connection was lost before it was written")
            self._on_settled(sending, lost)

    async def _publish(self, sending: Sending) -> None:
        message = sending.message
        error: BridgetaskError | None = None
        try:
            with translating():
                await self._channel.basic_publish(
                    message.body,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    properties=_Properties(message),
                    mandatory=message.mandatory,
                    wait=sending.large,
                )
        except BridgetaskError as reason:
            error = reason
        except Exception as reason:
            logger.exception("Publishing failed")
            error = Unconfirmed(f"unexpected {reason!r}")
        finally:
            self._tasks.pop(sending, None)
        self._on_settled(sending, error)


class _Properties(spec.Basic.Properties):
    """A message's properties, as Celery encodes them. aiormq gives each message an id."""

    def __init__(self, message: OutgoingMessage) -> None:
        super().__init__(message_id=message.properties.get("message_id"))
        self._message = message

    def marshal(self) -> bytes:
        return encode_properties({**self._message.properties, "message_id": self.message_id})


class PlainDeliveries:
    """Receives by aiormq's ``basic_consume``."""

    def __init__(self, channel: aiormq.Channel, on_message: OnMessage) -> None:
        self._channel = channel
        self._on_message = on_message
        self._unacknowledged: int | None = None
        self._acknowledging: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def on_delivery(self, message: aiormq.abc.DeliveredMessage) -> None:
        if self._unacknowledged is None:
            asyncio.get_running_loop().call_soon(self._acknowledge)
        self._unacknowledged = message.delivery_tag
        given = message.header.properties
        properties = Properties(*(getattr(given, name) for name in Properties._fields))
        self._on_message(message.body, properties)

    def _acknowledge(self) -> None:
        tag, self._unacknowledged = self._unacknowledged, None
        if tag is None or self._stopped or self._channel.is_closed:
            return
        work = self._channel.basic_ack(tag, multiple=True, wait=False)
        task = asyncio.get_running_loop().create_task(work)
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledged)

    def _acknowledged(self, task: asyncio.Task[None]) -> None:
        """Take no notice of a failure: that means a lost channel; everything comes again."""
        self._acknowledging.discard(task)
        if not task.cancelled():
            task.exception()

    def stop(self) -> None:
        self._stopped = True
