"""Publishes and receives messages by aiormq's own methods: the plain way, see :mod:`.channel`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiormq
import aiormq.abc
from aiormq import spec

from ...core.completion import Completion
from ...core.publishing import ConnectionLost, OnAnswer, Sending
from ...errors import BridgetaskError, Unconfirmed
from ...wire.message import OutgoingMessage, Properties
from .channel import OnMessage
from .errors import of_publishing, translating
from .properties import encode_properties

__all__ = ["PlainConsumer", "PlainPublisher"]

logger: logging.Logger = logging.getLogger(__name__)

#: Bytes of a body from which on aiormq waits until the socket has taken a message.
_LARGE = 65_536
#: Seconds that aiormq has after a channel is closed to fail what was to be published on it.
_GIVE_UP_AFTER = 0.2


class PlainPublisher:
    """Publishes by aiormq's ``basic_publish``."""

    per_turn: int = 8  # each takes about 0.1 ms

    def __init__(self, channel: aiormq.Channel, on_answer: OnAnswer) -> None:
        self._channel = channel
        self._on_answer = on_answer
        self._tasks: dict[Sending, asyncio.Task[None]] = {}
        self.all_answered: Completion = Completion()
        channel.closing.add_done_callback(self._on_closed)

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    def publish(self, sending: Sending) -> None:
        self._tasks[sending] = asyncio.get_running_loop().create_task(self._publish(sending))

    def flush(self) -> None:
        """Do nothing: aiormq writes on its own."""

    async def drain(self) -> None:
        """Return at once: ``basic_publish`` waits itself, with the channel locked."""

    def forget(self, sending: Sending) -> None:
        task = self._tasks.pop(sending, None)
        if task is not None:
            task.cancel()

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        """Give up on what aiormq does not fail.

        It fails publishes that wait for a confirm, but not those that wait to be written.
        """
        if not closing.cancelled():
            closing.exception()
        if self._tasks:
            asyncio.get_running_loop().call_later(_GIVE_UP_AFTER, self._give_up)
        else:
            self.all_answered.complete()

    def _give_up(self) -> None:
        for sending in list(self._tasks):
            self.forget(sending)
            lost = ConnectionLost("the connection was lost before it was written")
            self._on_answer(sending, lost)
        self.all_answered.complete()

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
                    wait=len(message.body) >= _LARGE,
                )
        except BridgetaskError as reason:
            error = of_publishing(reason)
        except Exception as reason:
            logger.exception("Publishing failed")
            error = Unconfirmed(f"unexpected {reason!r}")
        finally:
            self._tasks.pop(sending, None)
        self._on_answer(sending, error)


class _Properties(spec.Basic.Properties):
    """A message's properties, encoded as Celery encodes them.

    But for ``message_id``: aiormq sets it, and tells returned messages apart by it.
    """

    def __init__(self, message: OutgoingMessage) -> None:
        super().__init__(message_id=message.properties.get("message_id"))
        self._message = message

    def marshal(self) -> bytes:
        return encode_properties({**self._message.properties, "message_id": self.message_id})


class PlainConsumer:
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
        """Ignore a failure: the channel is lost, and the broker delivers its messages again."""
        self._acknowledging.discard(task)
        if not task.cancelled():
            task.exception()

    def stop(self) -> None:
        self._stopped = True
