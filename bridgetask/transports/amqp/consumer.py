"""Keeps a queue consumed, across lost connections, closed channels and deleted queues.

Messages are acknowledged after they were handed over. The broker delivers those again that were on
the wire when a connection was lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import aiormq
from aiormq import spec

from ...core.publishing import ConnectionLost
from ...errors import BridgetaskError, ClientClosed
from ...wire.message import Declaration
from .channel import ConsumingChannel, OnMessage
from .connection import AmqpConnection

__all__ = ["AmqpConsumer"]

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds between attempts to consume again: at first, and at most.
_BACK_OFF = 0.1, 2.0


class AmqpConsumer:
    """Keeps one queue consumed, across lost connections, closed channels and deleted queues.

    :param declarations: what the queue needs; declared whenever consuming begins.
    :param on_message: called with each message; it may not raise.
    :param prefetch: how many messages may come before the first of them is acknowledged. All of
        them may be handled in one turn of the event loop.
    :param wanted: asked after a loss: whether to consume again at once, or only at the next
        :meth:`start`.
    :param on_consuming: called whenever consuming begins, for the first time or again.
    :param on_interrupted: called when consuming ends, unless :meth:`close` or :meth:`abort` ended
        it.
    """

    def __init__(
        self,
        connection: AmqpConnection,
        queue: str,
        declarations: tuple[Declaration, ...],
        on_message: OnMessage,
        *,
        prefetch: int = 1000,
        wanted: Callable[[], bool],
        on_consuming: Callable[[], None] = lambda: None,
        on_interrupted: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._declarations = declarations
        self._on_message = on_message
        self._prefetch = prefetch
        self._wanted = wanted
        self._on_consuming = on_consuming
        self._on_interrupted = on_interrupted
        self._starting: asyncio.Task[None] | None = None
        self._channel: aiormq.Channel | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._consumer_tag: str | None = None
        self._receiving: ConsumingChannel | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Return once the queue is declared and consumed.

        Cancelling this does not cancel declaring and consuming: if an operation is cancelled,
        aiormq closes the channel under all others that use it.

        :raises ClientClosed: this is closed, or was aborted meanwhile.
        """
        if self.consuming:
            return
        if self._closed:
            raise ClientClosed("the client was closed")
        if self._starting is None or self._starting.done():
            self._starting = asyncio.get_running_loop().create_task(
                self._begin(), name="bridgetask consumer start"
            )
            self._starting.add_done_callback(_retrieve)
        starting = self._starting
        await asyncio.wait([starting])
        if starting.cancelled():  # by abort(); the caller is not cancelled
            raise ClientClosed("the client was closed")
        starting.result()

    @property
    def consuming(self) -> bool:
        """Whether the queue is consumed, as far as this side knows."""
        return self._channel is not None and not self._channel.is_closed

    async def _begin(self) -> None:
        seemed_open = self._connection.is_open
        try:
            await self._consume()
        except ConnectionLost:
            if not seemed_open:
                raise
            await self._consume()  # the connection was lost before, and nobody had noticed

    async def _consume(self) -> None:
        self._connection.forget_declarations()
        for declaration in self._declarations:
            await self._connection.declare(declaration)
        channel = await self._connection.channel(confirms=False)
        self._receiving = self._connection.consumer(channel, self._on_message)
        async with self._connection.answering():
            await channel.basic_qos(prefetch_count=self._prefetch)
            channel.on_consumer_cancel_callbacks.add(partial(self._cancelled, channel))
            consuming = await channel.basic_consume(self._queue, self._receiving.on_delivery)
        self._consumer_tag = consuming.consumer_tag
        self._channel = channel
        channel.closing.add_done_callback(partial(self._lost, channel))
        if self._closed:
            await self._stop()  # close() may have been cancelled while it waited for _begin()
        else:
            self._on_consuming()

    def abort(self) -> None:
        """Never consume again, and wait for nothing."""
        self._closed = True
        for task in (self._recovery, self._starting):
            if task is not None:
                task.cancel()

    async def close(self) -> None:
        """Stop consuming, and delete the queue and the channel."""
        self._closed = True
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait([self._recovery])
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self._stop()

    async def _stop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None or channel.is_closed or self._consumer_tag is None:
            return
        with suppress(BridgetaskError):
            async with self._connection.answering():
                # If the queue is deleted first, the broker cancels the consumer, which is logged.
                await channel.basic_cancel(self._consumer_tag)
                await channel.queue_delete(self._queue)
                await channel.close()

    def _in_background(self, work: Any) -> None:
        """Run a coroutine whose failure means that the channel is lost, which others notice."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(_retrieve)

    def _cancelled(self, channel: aiormq.Channel, frame: spec.Basic.Cancel) -> None:
        """Consume again after the broker has ended it because somebody deleted the queue."""
        logger.warning("The queue %s was deleted; declaring it again", self._queue)
        if self._receiving is not None:
            self._receiving.stop()
        self._in_background(channel.close())  # if _consume() has yet to keep it, it is lost then
        if channel is self._channel:
            self._channel = None
            self._interrupted()

    def _lost(self, channel: aiormq.Channel, closing: asyncio.Future[object]) -> None:
        if not closing.cancelled():
            closing.exception()
        if channel is self._channel:
            self._channel = None
            self._interrupted()

    def _interrupted(self) -> None:
        if not self._closed:
            self._on_interrupted()
            self._recover()

    def _recover(self) -> None:
        if self._recovery is not None or not self._wanted():
            return
        self._recovery = asyncio.get_running_loop().create_task(
            self._start_again(), name="bridgetask consumer recovery"
        )

    async def _start_again(self) -> None:
        delay, longest = _BACK_OFF
        try:
            while not self._closed and self._wanted() and not self.consuming:
                try:
                    await self.start()
                except BridgetaskError as error:
                    logger.warning("Can't consume %s: %s. Trying again", self._queue, error)
                except Exception:  # whatever it is: nobody else would consume again
                    logger.exception("Can't consume %s. Trying again", self._queue)
                else:
                    logger.info("Consuming %s again", self._queue)
                    continue
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))
                delay = min(delay * 2, longest)
        finally:
            self._recovery = None


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
