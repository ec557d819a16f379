"""Events of workers, which come by pub/sub: the exchange for events is a fanout one on Redis."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from ...core.receiving import EventListener
from ...errors import BridgetaskError, ClientClosed
from ...wire.events import EventCapture
from ...wire.virtual import Envelope
from .errors import RedisError, broker_error
from .subscriber import RedisSubscriber
from .subscriptions import RedisSubscriptions

__all__ = ["RedisCapture"]

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds between attempts to connect again: at first, and at most.
_BACK_OFF = 0.1, 2.0


class RedisCapture:
    """A capture of events. It leaves nothing behind in Redis.

    :param patterns: the channels that they are published on.
    """

    def __init__(
        self,
        subscriptions: RedisSubscriptions,
        patterns: Sequence[bytes],
        capture: EventCapture,
        listener: EventListener,
    ) -> None:
        self._subscriptions = subscriptions
        self._patterns = patterns
        self._capture = capture
        self._listener = listener
        self._starting: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once no event is missed. Cancelling it leaves that under way."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(
                self._begin(), name="bridgetask Redis events"
            )
        starting = self._starting
        await asyncio.wait([starting])
        if starting.cancelled():  # by close(), and not whoever is here
            raise ClientClosed("the client was closed")
        try:
            starting.result()
        except RedisError as error:
            raise broker_error(error) from error.__cause__

    async def _begin(self) -> None:
        self._subscriptions.join(self)
        for pattern in self._patterns:
            self._subscriptions.listen(pattern, self._take)
        try:
            await self._confirmed()
        except BaseException:
            self._starting = None
            await self._leave()
            raise
        self._listener.consuming()

    async def _confirmed(self) -> None:
        subscriber = await self._subscriptions.connected()
        await subscriber.confirmed()

    async def _leave(self) -> None:
        for pattern in self._patterns:
            self._subscriptions.ignore(pattern, self._take)
        await self._subscriptions.leave(self)

    async def close(self) -> None:
        starting, self._starting = self._starting, None
        if starting is None:
            return
        await asyncio.wait([starting])
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait([self._recovery])
        await self._leave()

    def abort(self) -> None:
        """Stop on the spot."""
        for task in (self._starting, self._recovery):
            if task is not None:
                task.cancel()

    def _take(self, payload: bytes) -> None:
        try:
            envelope = Envelope.of(payload)
            body = envelope.body()
        except Exception as error:  # it may have been published by anybody
            logger.warning("Dropped events that can't be read: %s", error)
            return
        for event in self._capture.read(body, envelope.properties):
            self._listener.push(event)

    # The connection.

    def connected(self, subscriber: RedisSubscriber) -> None:
        """Do nothing: patterns are asked for again by themselves."""

    def lost(self, error: RedisError) -> None:
        """Connect again, unless this is about to start or to end."""
        started = self._starting is not None and self._starting.done()
        if started and self._recovery is None:
            self._listener.interrupted()
            self._recovery = asyncio.get_running_loop().create_task(
                self._recover(), name="bridgetask Redis events again"
            )

    async def _recover(self) -> None:
        delay, longest = _BACK_OFF
        try:
            while True:
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))
                delay = min(delay * 2, longest)
                try:
                    await self._confirmed()
                except ClientClosed:
                    return
                except (RedisError, BridgetaskError) as error:
                    logger.warning("Can't capture events: %s. Trying again", error)
                else:
                    break
        finally:
            self._recovery = None
        logger.info("Capturing events again")
        self._listener.consuming()
