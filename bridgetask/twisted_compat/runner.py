"""Where the coroutines of a client run: on the event loop that goes with the reactor."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, succeed

from ..asyncio_impl.client import Client
from ..errors import ClientClosed
from .asyncio_reactor import ReactorLoop
from .client_internals import check_open, close_unused
from .deferreds import follower_of
from .event_loops import EventLoop
from .loop_thread import LoopThread

__all__ = ["Runner"]

T = TypeVar("T")


class Runner:
    """Runs a client's coroutines, and closes the client when the reactor shuts down at the latest.

    It chooses the event loop when the first coroutine is to run: the asyncio reactor's own, and
    the one of the loop thread on any other reactor.

    :param reactor: the reactor; None takes the installed one at the first use.
    """

    def __init__(self, client: Client, reactor: Any) -> None:
        self._client = client
        self._reactor = reactor
        self._event_loop: EventLoop | None = None
        self._trigger: Any = None
        self._closing: Deferred[None] | None = None

    def event_loop(self) -> EventLoop:
        """Return the event loop, chosen at the first call.

        :raises ClientClosed: the client was closed.
        """
        if self._event_loop is None or not self._event_loop.usable:
            if self._closing is not None:  # the client itself may be open for a while
                raise ClientClosed("the client is closed")
            check_open(self._client)
            if self._reactor is None:
                from twisted.internet import reactor

                self._reactor = reactor
            self._event_loop = _event_loop_for(self._reactor)
            if self._trigger is None:
                self._trigger = self._reactor.addSystemEventTrigger(
                    "before", "shutdown", self._shut_down
                )
        return self._event_loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine on the event loop. Cancelling the Deferred cancels the coroutine.

        :raises ClientClosed: the client was closed; the coroutine is closed, too.
        """
        try:
            event_loop = self.event_loop()
        except BaseException:
            coroutine.close()
            raise
        return event_loop.deferred(coroutine)

    def close(self) -> Deferred[None]:
        """Close the client, and let go of the event loop. Fires once that is done."""
        if self._closing is not None:
            return follower_of(self._closing)
        event_loop, self._event_loop = self._event_loop, None
        if event_loop is None or not event_loop.usable:
            close_unused(self._client)
            return succeed(None)

        def closed(outcome: Any) -> Any:
            event_loop.release()
            trigger, self._trigger = self._trigger, None
            if trigger is not None:
                self._reactor.removeSystemEventTrigger(trigger)
            return outcome

        self._closing = event_loop.deferred(self._client.close())
        self._closing.addBoth(closed)
        return follower_of(self._closing)

    def _shut_down(self) -> Deferred[None]:
        self._trigger = None  # Twisted lets nobody remove one that has fired
        return self.close()


def _event_loop_for(reactor: Any) -> EventLoop:
    if isinstance(reactor, AsyncioSelectorReactor):
        return ReactorLoop(reactor)
    return LoopThread.acquire(reactor)
