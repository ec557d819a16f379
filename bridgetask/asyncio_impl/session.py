"""What a client has while it runs: everything that belongs to one event loop and one process."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from ..errors import BrokerUnreachable, ClientClosed, WrongEventLoop
from ..wire.message import OutgoingMessage
from ..wire.wire import Wire
from .completion import Completion
from .pending import PendingResults
from .transports.base import ControlChannel, ResultSource, Sender, Transports

__all__ = ["Connect", "Session"]

logger: logging.Logger = logging.getLogger(__name__)

#: Makes the transports of a session.
Connect = Callable[[Wire, PendingResults, asyncio.AbstractEventLoop], Transports]

#: Seconds that disconnecting may take when the event loop ends under an open client.
_AT_LOOP_END = 1.0

#: The sessions of this process, and in a forked one those that it was forked with.
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_of_the_parent: list[Session] = []


def _leave_the_parents_alone() -> None:
    """Hold what a fork duplicated for good: to collect its sockets would unregister the parent's.

    Both processes share the event loop's epoll.
    """
    _of_the_parent.extend(_sessions)


os.register_at_fork(after_in_child=_leave_the_parents_alone)


class Session:
    """Connections, the queue of messages, and the results that are waited for.

    :param connect: makes the transports.
    :param send_timeout: seconds that a message may take until the broker has confirmed it.
    """

    def __init__(
        self,
        wire: Wire,
        loop: asyncio.AbstractEventLoop,
        connect: Connect,
        *,
        send_timeout: float,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.process: int = os.getpid()
        self.pending: PendingResults = PendingResults()
        self.closed: bool = False
        self._wire = wire
        self._send_timeout = send_timeout
        transports = connect(wire, self.pending, loop)
        self._sender: Sender = transports.sender
        self._results: ResultSource = transports.results
        self._start_results = transports.results.start
        self._replies: ControlChannel = transports.replies
        self._on_reply: dict[str, Callable[[object], None]] = {}
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
                warnings.warn("the event loop ended with an open client", ResourceWarning, 1)
                await self.close(_AT_LOOP_END)
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
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self.loop:
            raise WrongEventLoop("this belongs to another event loop than the one that runs")

    async def connect(self) -> None:
        """Connect for sending and, where there are results to get, for receiving.

        :raises BrokerUnreachable: that was not possible, or not within ``send_timeout``.
        """
        try:
            async with asyncio.timeout(self._send_timeout):
                await self._sender.connect()
                if self._wire.settings.results.unavailable is None:
                    await self._results.start()
        except TimeoutError:
            raise BrokerUnreachable(
                f"no broker could be connected to within {self._send_timeout} s"
            ) from None

    def send(
        self, message: OutgoingMessage, delivery: Completion, *, receives: Sequence[str] = ()
    ) -> None:
        """Take a message, to be sent as soon as that can be done.

        :param receives: the ids of the tasks whose results may come once it is sent.
        """
        deadline = self.loop.time() + self._send_timeout
        self._sender.send(message, delivery, deadline, self._results if receives else None)

    def run(self, sending: Coroutine[Any, Any, None]) -> None:
        """Run what sends more messages, until the session is closed at the latest."""
        task = self.loop.create_task(sending)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def command(self, message: OutgoingMessage) -> None:
        """Send a command to workers; return once the broker has confirmed it.

        :raises SendError: it has not.
        """
        delivery = Completion()
        self._sender.send(message, delivery, self.loop.time() + self._send_timeout)
        await delivery.wait()

    async def listen_for_replies(self) -> None:
        """Return once replies to commands can arrive."""
        await self._replies.listen(self._dispatch_reply)

    def on_reply(self, ticket: str, callback: Callable[[object], None] | None) -> None:
        """Call ``callback`` with each reply that carries ``ticket``; with None, no longer."""
        if callback is None:
            self._on_reply.pop(ticket, None)
        else:
            self._on_reply[ticket] = callback

    def _dispatch_reply(self, ticket: str, said: object) -> None:
        callback = self._on_reply.get(ticket)
        if callback is not None:
            callback(said)

    async def close(self, timeout: float) -> None:
        """Send what is queued, then disconnect, within ``timeout`` seconds in all.

        What is not settled by then fails, and so does every result that is still waited for.
        """
        if self.closed:
            return
        self.closed = True
        deadline = self.loop.time() + timeout
        with suppress(TimeoutError):
            # Saying goodbye wants its share of the time, too.
            async with asyncio.timeout_at(deadline - timeout / 4):
                while self._background:
                    await asyncio.wait(self._background)
                await self._sender.drain()
        unsent, awaited = self._sender.queued, self.pending.awaited
        if unsent or awaited:
            logger.warning(
                "Closing abandons %d messages without a confirm, and %d awaited results",
                unsent,
                awaited,
            )
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.gather(
                    self._sender.close(), self._results.close(), return_exceptions=True
                )
        except TimeoutError:
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop everything on the spot."""
        self.closed = True
        if self._guard is not None:
            self._guard.cancel()
        for task in self._background:
            task.cancel()
        self._sender.abort()
        self._results.abort()
        self.pending.fail_all(ClientClosed("the client was closed while the result was awaited"))
