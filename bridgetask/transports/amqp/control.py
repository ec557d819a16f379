"""Replies to control commands, and events, on the connection that results use."""

from __future__ import annotations

import asyncio
import logging

from ...core.limited_log import LimitedLog
from ...core.receiving import EventListener, ReplyListener
from ...wire.control import ControlMailbox, Purge
from ...wire.events import EventCapture
from ...wire.message import Properties
from .connection import AmqpConnection
from .consumer import AmqpConsumer

__all__ = ["AmqpControlChannel"]

logger: logging.Logger = logging.getLogger(__name__)

#: How many messages with events may come before the first of them is acknowledged. A message may
#: hold two dozen events, each of which takes about 30 µs to handle.
_PREFETCH = 50


class AmqpControlChannel:
    """Receives replies in a queue of this client's own, and events in a queue for each capture.

    :param connection: results use it as well; :meth:`close` closes it, so call that last.
    """

    #: RabbitMQ does not tell how many queues are bound to an exchange.
    workers: int | None = None

    def __init__(
        self, connection: AmqpConnection, mailbox: ControlMailbox, replies: ReplyListener
    ) -> None:
        self._connection = connection
        self._mailbox = mailbox
        self._replies = replies
        self._unreadable = LimitedLog(logger)
        self._consumer = AmqpConsumer(
            connection,
            mailbox.reply_queue,
            mailbox.reply_declarations,
            self._on_message,
            wanted=lambda: False,  # the next command starts it again, by prepare()
            on_interrupted=replies.interrupted,
        )

    @property
    def ready(self) -> bool:
        return self._consumer.consuming

    async def prepare(self) -> None:
        await self._consumer.start()

    def subscribe(self, capture: EventCapture, listener: EventListener) -> AmqpConsumer:
        def on_message(body: bytes, properties: Properties) -> None:
            for event in capture.read(body, properties):
                listener.push(event)

        return AmqpConsumer(
            self._connection,
            capture.queue,
            capture.declarations,
            on_message,
            prefetch=_PREFETCH,
            wanted=lambda: True,
            on_consuming=listener.consuming,
            on_interrupted=listener.interrupted,
        )

    async def purge(self, purge: Purge) -> int:
        # Shielded: where an operation is cancelled, aiormq closes the channel under all others.
        return await asyncio.shield(asyncio.ensure_future(self._purge(purge)))

    async def _purge(self, purge: Purge) -> int:
        for declaration in purge.declarations:
            await self._connection.declare(declaration)
        channel = await self._connection.channel(confirms=False)
        async with self._connection.answering():
            purged = await channel.queue_purge(purge.queue)
            await channel.close()
        return purged.message_count or 0

    async def close(self) -> None:
        self._connection.retire()
        await self._consumer.close()
        await self._connection.close()

    def abort(self) -> None:
        self._consumer.abort()
        self._connection.retire()
        self._connection.abort()

    def _on_message(self, body: bytes, properties: Properties) -> None:
        try:
            reply = self._mailbox.reply(body, properties)
        except Exception as error:  # anybody may have written it
            self._unreadable.warning("Dropped a reply that can't be read: %r", error)
            return
        if reply is not None:
            self._replies.deliver(*reply)
