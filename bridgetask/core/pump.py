"""Publishes messages that have to wait for something first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from ..errors import BackendUnreachable, BridgetaskError, BrokerUnreachable, NotSent
from .preparation import Preparation
from .publishing import Publisher, Sending
from .unsettled import Unsettled

__all__ = ["Pump"]

logger: logging.Logger = logging.getLogger(__name__)


class Pump:
    """Publishes one message after the other, in a task, for as long as the next has to wait.

    A message waits for its preparation, for a broker that takes nothing for now, and, where it is
    large, until it is written, or until it is the only one on its way.

    :param max_in_flight: how many messages may be published without an answer.
    :param on_stopped: called when the task has ended: the next message, if any, need not wait.
    """

    def __init__(
        self,
        publisher: Publisher,
        preparation: Preparation,
        unsettled: Unsettled,
        loop: asyncio.AbstractEventLoop,
        *,
        max_in_flight: int,
        on_stopped: Callable[[], None],
    ) -> None:
        self._publisher = publisher
        self._preparation = preparation
        self._unsettled = unsettled
        self._loop = loop
        self._max_in_flight = max_in_flight
        self._on_stopped = on_stopped
        #: The task, while there is one.
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to publish what is in the queue."""
        self.task = self._loop.create_task(self._run(), name="bridgetask outbox")

    def must_take(self, sending: Sending) -> bool:
        """Tell whether a message has to wait for something that is its own."""
        return not (self._is_small(sending) and self._preparation.is_done(sending))

    def _is_small(self, sending: Sending) -> bool:
        """Tell whether a message can be published with others, and written with them."""
        return not sending.alone and len(sending.message.body) < self._publisher.large

    async def _run(self) -> None:
        queue = self._unsettled.queue
        try:
            while queue:
                sending = queue[0]
                if sending.delivery.done:
                    queue.popleft()
                elif self._publisher.blocked is None and not self.must_take(sending):
                    break
                elif await self._prepare(sending):
                    await self._publish_in_time(sending)
        finally:
            self.task = None
            self._on_stopped()

    async def _prepare(self, sending: Sending) -> bool:
        """Do all that must precede a message; return whether that succeeded, and still holds."""
        stood = self._publisher.is_open
        try:
            await self._preparation.make(sending, self._unsettled.queue[-1].number)
        except BrokerUnreachable as error:
            # A lost connection counts for those that were on their way, and for nobody else.
            if not stood or self._publisher.is_open:
                await self._back_off(error)
            return False
        except BackendUnreachable as error:
            self._put_aside(sending, error)
            return False
        except BridgetaskError as error:
            self._unsettled.settle(sending, error)
            return False
        except Exception as error:  # whatever it is, it may not take others with it
            logger.exception("A message could not be sent")
            self._unsettled.settle(sending, NotSent(f"unexpected {error!r}"))
            return False
        return self._preparation.lets_answers_in(sending)  # the receiver may have been lost

    async def _publish_in_time(self, sending: Sending) -> None:
        """Publish a message when there is room for it; return when the socket has taken it."""
        unsettled = self._unsettled
        alone = sending.alone or len(sending.message.body) >= self._publisher.alone
        most = 0 if alone else self._max_in_flight - 1
        while len(unsettled.in_flight) > most and not sending.delivery.done:
            await unsettled.change()
        still_ready = self._publisher.blocked is None and self._publisher.ready(sending.message)
        if not still_ready or unsettled.queue[0] is not sending:
            return
        unsettled.queue.popleft()
        if sending.delivery.done:
            return
        sending.alone = alone
        unsettled.publish(sending)
        if self._is_small(sending):
            self._publisher.flush()
        else:
            await self._publisher.drain()
        while alone and unsettled.in_flight:
            await unsettled.change()

    async def _back_off(self, error: BridgetaskError) -> None:
        """Count a failed attempt for all that wait; pause as the first that is left wants it."""
        for sending in list(self._unsettled.queue):
            self._count_failure(sending, error)
        first = next((each for each in self._unsettled.queue if not each.delivery.done), None)
        if first is not None:
            logger.warning("Can't send: %s. Trying again", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(first.pause):
                    await first.settled()  # its pause is not for those behind it

    def _put_aside(self, failed: Sending, error: BridgetaskError) -> None:
        """Let those go first that need nothing of the result backend, which is not there."""
        queue = self._unsettled.queue
        needing = [each for each in queue if each.needs_backend_like(failed)]
        others = [each for each in queue if not each.needs_backend_like(failed)]
        queue.clear()
        queue.extend(others)
        for sending in needing:
            self._count_failure(sending, error)
            if not sending.delivery.done:
                self._unsettled.aside.put(sending)

    def _count_failure(self, sending: Sending, error: BridgetaskError) -> None:
        """Fail a message that has no retries left."""
        sending.last_error = error
        if sending.may_retry:
            sending.retries += 1
        else:
            self._unsettled.settle(sending, error)
