"""The part of a client that belongs to one event loop: connections, messages, outcomes."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
import weakref
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from ..core.backlog import Backlog
from ..core.completion import Completion
from ..core.outbox import Outbox
from ..core.outcomes import Outcome, PendingResults
from ..core.plugs import BackendPlug, SessionContext
from ..core.receiving import EventListener, ResultStore, Subscription
from ..core.replies import PendingReplies
from ..errors import (
    BackendError,
    BackendUnreachable,
    BridgetaskError,
    BrokerUnreachable,
    ClientClosed,
    ResultUnavailable,
    WrongEventLoop,
)
from ..transports.plugs import Plugs
from ..wire.codec import Codec
from ..wire.control import Purge
from ..wire.events import EventCapture
from ..wire.message import OutgoingMessage

__all__ = ["Session"]

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds that disconnecting may take when the event loop ends under an open client.
_AT_LOOP_END = 1.0

#: The sessions of this process, and in a forked one those that it was forked with.
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_of_the_parent: list[Session] = []


def _leave_the_parents_alone() -> None:
    """Keep the parent's sessions alive in the child for ever.

    Collecting their sockets would unregister those of the parent.

    Both processes share the event loop's epoll.
    """
    _of_the_parent.extend(_sessions)


os.register_at_fork(after_in_child=_leave_the_parents_alone)


async def _wait_for_all_but(tasks: set[asyncio.Task[Any]]) -> None:
    """Return once all other tasks than these have ended, and those that followed them."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_AT_LOOP_END):
            while others := asyncio.all_tasks() - tasks:
                await asyncio.wait(others)
                await asyncio.sleep(0)  # what follows them is begun now


class Session:
    """Connections, the queue of messages, and the results that are waited for.

    :param plugs: the broker and the backend.
    :param codec: what builds and reads messages.
    :param send_timeout: seconds that a message may take until the broker has confirmed it.
    :param max_in_flight: how many messages may be published without a confirm.
    :param max_queued: how many messages may wait for a confirm in all.
    """

    def __init__(
        self,
        plugs: Plugs,
        codec: Codec,
        loop: asyncio.AbstractEventLoop,
        *,
        send_timeout: float,
        max_in_flight: int,
        max_queued: int,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.process: int = os.getpid()
        self.pending: PendingResults = PendingResults()
        self.replies: PendingReplies = PendingReplies()
        self.backlog: Backlog = Backlog(max_queued)
        self.closed: bool = False
        #: The result backend, and what it can do.
        self.backend: BackendPlug = plugs.backend
        self._send_timeout = send_timeout
        broker, self._results, store = plugs.connect(
            SessionContext(codec, self.pending, self.replies, loop)
        )
        self._control = broker.control
        #: Where results are stored, if they are.
        self.store: ResultStore | None = store
        self._outbox = Outbox(broker.publisher, store, loop, max_in_flight=max_in_flight)
        self._subscriptions: dict[Subscription, EventListener] = {}
        self._guard: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        _sessions.add(self)
        loop.call_soon_threadsafe(self._start)  # another thread may be making this

    def _start(self) -> None:
        if not self.closed:
            self._guard = self.loop.create_task(
                self._until_the_loop_ends(), name="bridgetask session"
            )

    async def _until_the_loop_ends(self) -> None:
        """Disconnect when ``asyncio.run`` cancels all tasks at its end, under an open client."""
        try:
            await self.loop.create_future()
        except asyncio.CancelledError:
            if not self.closed:
                self._guard = None  # closing would cancel this
                cancelled = asyncio.all_tasks()
                warnings.warn("the event loop ended with an open client", ResourceWarning, 1)
                await self.close(_AT_LOOP_END)
                await _wait_for_all_but(cancelled)  # nobody else waits for what closing began
            raise

    @property
    def usable(self) -> bool:
        """Whether the session's loop and process still are those that run."""
        return not self.loop.is_closed() and self.process == os.getpid()

    def check_loop(self) -> None:
        """Refuse to work for another loop than our own.

        :raises ClientClosed: the client was closed.
        :raises WrongEventLoop: another event loop is running, or none.
        """
        if self.closed:
            raise ClientClosed("the client is closed")
        if not self.runs_here:
            raise WrongEventLoop("this belongs to another event loop than the one that runs")

    @property
    def runs_here(self) -> bool:
        """Whether its event loop is the one that runs in this thread."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    async def connect(self) -> None:
        """Connect for sending and, where there are results to get, for receiving.

        :raises BrokerUnreachable: that was not possible, or not within ``send_timeout``.
        :raises BackendError: results can't be received, or not within that time.
        """
        deadline = self.loop.time() + self._send_timeout
        async with self._in_time(deadline):
            await self._outbox.connect()
        if self.backend.unavailable is None:
            unreachable = BrokerUnreachable if self.store is None else BackendUnreachable
            async with self._in_time(deadline, unreachable):
                await self._results.prepare()

    @asynccontextmanager
    async def _in_time(
        self, deadline: float | None = None, unreachable: type[BridgetaskError] = BrokerUnreachable
    ) -> AsyncIterator[None]:
        if deadline is None:
            deadline = self.loop.time() + self._send_timeout
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            raise unreachable(f"there was no connection within {self._send_timeout} s") from None

    def group_store(self, group_id: str) -> ResultStore:
        """Return where groups can be stored.

        :raises ResultUnavailable: nowhere.
        """
        if self.store is None:
            raise ResultUnavailable(
                f"group {group_id} can't be stored: only a backend that stores results can do"
                " that, as redis:// does",
                task_id=group_id,
            )
        return self.store

    def expect(self, task_ids: Sequence[str]) -> None:
        """Begin to get ready for what these tasks report."""
        self._results.expect(task_ids)

    def send(
        self, message: OutgoingMessage, delivery: Completion, *, receives: bool = False
    ) -> None:
        """Take a message, to be sent as soon as that can be done.

        :param receives: whether results may come once it is sent, of tasks that are expected.
        """
        deadline = self.loop.time() + self._send_timeout
        self._outbox.send(message, delivery, deadline, self._results if receives else None)

    async def watch(self, outcome: Outcome) -> None:
        """Return once a result that is stored by now is delivered, and a later one will be.

        Does nothing for a task that was sent from here: its result is watched for already, unless
        that was given up on.

        :raises BackendError: results can't be received.
        """
        given_up = isinstance(outcome.error, BackendError)
        if self.store is None or (outcome.done and not given_up):
            return
        if outcome.delivery is None or given_up:
            outcome.reopen()
            await self.store.watch(outcome.task_id)

    async def refresh(self, outcome: Outcome) -> None:
        """Return once a result that is stored by now is delivered.

        :raises BackendError: results can't be read.
        """
        assert self.store is not None
        if isinstance(outcome.error, BackendError):
            await self.watch(outcome)  # it was given up on, and nobody watches for it
        else:
            await self.store.fetch([outcome.task_id])

    def run(self, sending: Coroutine[Any, Any, None]) -> None:
        """Run what sends more messages, until the session is closed at the latest."""
        task = self.loop.create_task(sending)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @property
    def workers(self) -> int | None:
        """How many workers there are, where that is known."""
        return self._control.workers

    async def command(self, message: OutgoingMessage, *, replies: bool) -> int | None:
        """Send a command to workers; return once the broker has confirmed it.

        :param replies: whether it goes only once replies can arrive.
        :returns: how many workers have received it, where the broker tells.
        :raises SendError: it has not.
        """
        delivery = Completion()
        deadline = self.loop.time() + self._send_timeout
        self._outbox.send(message, delivery, deadline, self._control if replies else None)
        await delivery.wait()
        return delivery.receivers

    async def purge(self, purge: Purge) -> int:
        """Empty a queue; return how many messages were in it.

        :raises SendError: that was not possible, or not within ``send_timeout``.
        """
        async with self._in_time():
            return await self._control.purge(purge)

    def subscribe(self, capture: EventCapture, listener: EventListener) -> Subscription:
        """Return a capture of events that is yet to be started, and ends with the session."""
        subscription = self._control.subscribe(capture, listener)
        self._subscriptions[subscription] = listener
        return subscription

    async def start(self, subscription: Subscription) -> None:
        """Return once no event is missed.

        :raises BrokerUnreachable: that was not possible, or not within ``send_timeout``.
        """
        async with self._in_time():
            await subscription.start()

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop a capture of events."""
        try:
            await subscription.close()
        finally:
            self._subscriptions.pop(subscription, None)

    async def close(self, timeout: float) -> None:
        """Send what is queued, then disconnect, within ``timeout`` seconds in all.

        What is not settled by then fails, and so does every result that is still waited for.
        """
        if self.closed:
            return
        self.closed = True
        deadline = self.loop.time() + timeout
        try:
            # Saying goodbye wants its share of the time, too.
            await self._finish(deadline - timeout / 4)
            self._end_subscriptions()
            async with asyncio.timeout_at(deadline):
                await asyncio.gather(
                    self._outbox.close(), self._close_receivers(), return_exceptions=True
                )
        except TimeoutError:
            pass
        finally:
            self.abort()

    async def _finish(self, deadline: float) -> None:
        """Send what is queued; say what could not be, and which results are given up."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._background:
                    await asyncio.wait(self._background)
                await self._outbox.drain()
                await self._results.settle()
        unsent, awaited = self._outbox.queued, self.pending.awaited
        if unsent or awaited:
            logger.warning(
                "Closing abandons %d messages without a confirm, and %d awaited results",
                unsent,
                awaited,
            )

    async def _close_receivers(self) -> None:
        await asyncio.gather(
            self._results.close(),
            *(subscription.close() for subscription in self._subscriptions),
            return_exceptions=True,
        )
        await self._control.close()  # on a connection that the others may use, too

    def abort(self) -> None:
        """Drop everything on the spot."""
        self.closed = True
        if self._guard is not None:
            self._guard.cancel()
        for task in self._background:
            task.cancel()
        self._outbox.abort()
        self._results.abort()
        self._control.abort()
        self.pending.fail_all(ClientClosed("the client was closed while the result was awaited"))
        self.replies.fail_all(ClientClosed("the client was closed while replies were awaited"))
        self._end_subscriptions()
        self._subscriptions.clear()

    def _end_subscriptions(self) -> None:
        for listener in self._subscriptions.values():
            listener.fail(ClientClosed("the client was closed while events were captured"))
