"""Results by ``rpc://``: one reply queue, one consumer, for all that this client sends.

The queue is ours by name, durable, neither exclusive nor auto-delete, and expires once it has had
no consumer for a while. So what finishes while the connection is down is there after it. Messages
are acknowledged when they have been handed over: what was still on the wire comes again, and a
result that comes twice is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import aiormq
from aiormq import spec

from ...errors import BridgetaskError, ResultUndecodable
from ...wire.control import ControlMailbox
from ...wire.message import Declaration
from ...wire.results import ResultDecoder
from ..pending import PendingResults
from .amqp_channel import Deliveries, OnMessage
from .amqp_connection import AmqpConnection

__all__ = ["AmqpControlChannel", "RpcResults"]

logger: logging.Logger = logging.getLogger(__name__)

#: How many results RabbitMQ may send before the first of them is acknowledged.
_PREFETCH = 1000
#: Seconds between attempts to consume again: at first, and at most.
_BACK_OFF = 0.1, 2.0


class _Consumer:
    """Keeps one queue consumed, across lost connections, closed channels and deleted queues.

    :param declarations: what must exist; declared again whenever consuming begins again.
    :param on_message: called with each message; it may not raise.
    :param wanted: whether to consume again at once after a loss, or only at the next start.
    """

    def __init__(
        self,
        connection: AmqpConnection,
        queue: str,
        declarations: tuple[Declaration, ...],
        on_message: OnMessage,
        *,
        wanted: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._declarations = declarations
        self._on_message = on_message
        self._wanted = wanted
        self._starting = asyncio.Lock()
        self._channel: aiormq.Channel | None = None
        self._deliveries: Deliveries | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._consumer_tag: str | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the queue is consumed, as far as this side knows."""
        return self._channel is not None and not self._channel.is_closed

    async def start(self) -> None:
        """Return once the queue is declared and consumed."""
        if self.ready:
            return
        async with self._starting:
            if self.ready:
                return
            self._connection.forget_declarations()
            for declaration in self._declarations:
                await self._connection.declare(declaration)
            channel = await self._connection.channel(confirms=False)
            self._deliveries = self._connection.deliveries(channel, self._on_message)
            async with self._connection.answering():
                await channel.basic_qos(prefetch_count=_PREFETCH)
                channel.on_consumer_cancel_callbacks.add(self._cancelled)
                consuming = await channel.basic_consume(self._queue, self._deliveries.on_delivery)
            self._consumer_tag = consuming.consumer_tag
            self._channel = channel
            channel.closing.add_done_callback(self._lost)

    def stop(self) -> None:
        """Never consume again."""
        self._closed = True
        if self._recovery is not None:
            self._recovery.cancel()

    async def close(self) -> None:
        """Stop consuming and delete the queue."""
        self.stop()
        if self._recovery is not None:
            await asyncio.wait([self._recovery])
        channel = self._channel
        if channel is None or channel.is_closed or self._consumer_tag is None:
            return
        with suppress(BridgetaskError):
            async with self._connection.answering():
                # First this: deleting a queue under a consumer makes the broker cancel it, loudly.
                await channel.basic_cancel(self._consumer_tag)
                await channel.queue_delete(self._queue)

    def _in_background(self, work: Any) -> None:
        """Do what may fail: that means a lost channel, after which everything comes again."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(_retrieve)

    def _cancelled(self, frame: spec.Basic.Cancel) -> None:
        """Consume again: the broker ended it, because somebody deleted the queue."""
        logger.warning("The queue %s was deleted; declaring it again", self._queue)
        channel, self._channel = self._channel, None
        if self._deliveries is not None:
            self._deliveries.stop()
        if channel is not None:
            self._in_background(channel.close())
        self._recover()

    def _lost(self, closing: asyncio.Future[object]) -> None:
        if not closing.cancelled():
            closing.exception()
        self._recover()

    def _recover(self) -> None:
        if self._closed or self._recovery is not None or not self._wanted():
            return
        self._recovery = asyncio.get_running_loop().create_task(
            self._start_again(), name="bridgetask consumer recovery"
        )

    async def _start_again(self) -> None:
        delay, longest = _BACK_OFF
        try:
            while not self._closed and self._wanted():
                try:
                    await self.start()
                except BridgetaskError as error:
                    logger.warning("Can't consume %s: %s. Trying again", self._queue, error)
                    await asyncio.sleep(delay * random.uniform(0.8, 1.2))
                    delay = min(delay * 2, longest)
                else:
                    logger.info("Consuming %s again", self._queue)
                    return
        finally:
            self._recovery = None


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


class RpcResults:
    """Receives results in a reply queue of our own.

    :param address: the queue's name, which goes out as ``reply_to``.
    :param expires: seconds for which the queue lives on with nobody consuming it.
    """

    def __init__(
        self,
        connection: AmqpConnection,
        address: str,
        expires: float,
        decoder: ResultDecoder,
        pending: PendingResults,
    ) -> None:
        self._connection = connection
        self._decoder = decoder
        self._pending = pending
        arguments = {"x-expires": int(expires * 1000)}
        declaration = Declaration.of(
            "queue_declare",
            address,
            {
                "durable": True,
                "exclusive": False,
                "auto_delete": False,
                "passive": False,
                "arguments": arguments,
            },
        )
        self._consumer = _Consumer(
            connection,
            address,
            (declaration,),
            self._on_message,
            wanted=lambda: pending.unfinished > 0,
        )

    @property
    def ready(self) -> bool:
        return self._consumer.ready

    async def start(self) -> None:
        await self._consumer.start()

    async def close(self) -> None:
        """Stop, and delete the queue: nobody will ever ask for what it still gets."""
        await self._consumer.close()
        await self._connection.close()

    def abort(self) -> None:
        self._consumer.stop()
        self._connection.abort()

    def _on_message(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        headers: Mapping[str, Any] | None,
        correlation_id: str | None,
    ) -> None:
        try:
            update = self._decoder.decode(
                body, content_type, content_encoding, headers, correlation_id
            )
        except ResultUndecodable as error:
            self._pending.deliver_undecodable(error)
        else:
            self._pending.deliver(update)


class AmqpControlChannel:
    """Receives the replies of workers to commands, on the connection that results use."""

    def __init__(self, connection: AmqpConnection, mailbox: ControlMailbox) -> None:
        self._mailbox = mailbox
        self._on_reply: Callable[[str, object], None] | None = None
        self._consumer = _Consumer(
            connection,
            mailbox.reply_queue,
            mailbox.reply_declarations,
            self._on_message,
            wanted=lambda: False,  # a command waits for seconds at most, and starts it itself
        )

    async def listen(self, on_reply: Callable[[str, object], None]) -> None:
        self._on_reply = on_reply
        await self._consumer.start()

    def _on_message(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        headers: Mapping[str, Any] | None,
        correlation_id: str | None,
    ) -> None:
        try:
            reply = self._mailbox.reply(body, content_type, content_encoding, headers)
        except Exception as error:  # it may have been written by anybody
            logger.warning("Dropped a reply that can't be read: %s", error)
            return
        if reply is not None and self._on_reply is not None:
            self._on_reply(*reply)
