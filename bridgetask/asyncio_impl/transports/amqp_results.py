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
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import aiormq
import aiormq.abc
from aiormq import spec

from ...errors import BridgetaskError
from ...wire.control import ControlMailbox
from ...wire.message import Declaration
from ...wire.results import ResultDecoder
from ..decoding import Decoding
from ..limited_log import LimitedLog
from ..pending import PendingResults
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
        on_message: Callable[[aiormq.abc.DeliveredMessage], None],
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
        self._recovery: asyncio.Task[None] | None = None
        self._consumer_tag: str | None = None
        self._unacknowledged: int | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Return once the queue is declared and consumed."""
        if self._channel is not None and not self._channel.is_closed:
            return
        async with self._starting:
            if self._channel is not None and not self._channel.is_closed:
                return
            self._connection.forget_declarations()
            for declaration in self._declarations:
                await self._connection.declare(declaration)
            opened = await self._connection.channel(confirms=False)
            channel = cast(aiormq.Channel, await opened.get_underlay_channel())
            async with self._connection.answering():
                await channel.basic_qos(prefetch_count=_PREFETCH)
                channel.on_consumer_cancel_callbacks.add(self._cancelled)
                consuming = await channel.basic_consume(self._queue, self._deliver)
            self._consumer_tag = consuming.consumer_tag
            self._unacknowledged = None
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

    async def _deliver(self, message: aiormq.abc.DeliveredMessage) -> None:
        if self._unacknowledged is None:
            asyncio.get_running_loop().call_soon(
                self._acknowledge, cast(aiormq.Channel, message.channel)
            )
        self._unacknowledged = message.delivery_tag
        self._on_message(message)

    def _acknowledge(self, channel: aiormq.Channel) -> None:
        """Acknowledge all that came in this turn of the loop with one frame."""
        tag, self._unacknowledged = self._unacknowledged, None
        if tag is None or channel is not self._channel or channel.is_closed:
            return
        self._in_background(channel.basic_ack(tag, multiple=True, wait=False))

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
        decoding: Decoding,
    ) -> None:
        self._decoder = decoder
        self._pending = pending
        self._decoding = decoding
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

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: the queue is the same for all tasks."""

    async def prepare(self) -> None:
        await self._consumer.start()

    async def close(self) -> None:
        """Stop, and delete the queue: nobody will ever ask for what it still gets."""
        await self._consumer.close()
        self._decoding.close()

    def abort(self) -> None:
        self._consumer.stop()
        self._decoding.close()

    def _on_message(self, message: aiormq.abc.DeliveredMessage) -> None:
        properties = message.header.properties
        body, headers, task_id = message.body, properties.headers, properties.correlation_id
        decode = partial(
            self._decoder.decode,
            body,
            properties.content_type,
            properties.content_encoding,
            headers,
            task_id,
        )
        self._decoding.take(
            decode,
            task_id,
            partial(self._pending.deliver, size=len(body)),
            self._pending.deliver_undecodable,
            slow=self._decoder.is_slow(body, headers),
        )


class AmqpControlChannel:
    """Receives the replies of workers to commands, on the connection that results use."""

    def __init__(self, connection: AmqpConnection, mailbox: ControlMailbox) -> None:
        self._connection = connection
        self._mailbox = mailbox
        self._unreadable = LimitedLog(logger)
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

    async def close(self) -> None:
        """Close the connection, which results have done with by then."""
        await self._connection.close()

    def abort(self) -> None:
        self._consumer.stop()
        self._connection.abort()

    def _on_message(self, message: aiormq.abc.DeliveredMessage) -> None:
        properties = message.header.properties
        try:
            reply = self._mailbox.reply(
                message.body,
                properties.content_type,
                properties.content_encoding,
                properties.headers,
            )
        except Exception as error:  # it may have been written by anybody
            self._unreadable.warning("Dropped a reply that can't be read: %r", error)
            return
        if reply is not None and self._on_reply is not None:
            self._on_reply(*reply)
