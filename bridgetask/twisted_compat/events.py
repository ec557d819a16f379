"""The events of workers, each passed to a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ..asyncio_impl.events import Events
from .client_internals import close_soon
from .deferreds import QuietDeferred, for_each
from .event_loops import EventLoop

__all__ = ["DeferredEvents"]


class DeferredEvents(QuietDeferred[None]):
    """A stream of events. It passes each to a callback in the reactor's thread, until cancelled.

    It fires when the stream ends, which also deletes the capture's queue: with ``CancelledError``,
    with :class:`bridgetask.errors.ClientClosed`, with the reason why it could not be started, or
    with the callback's exception.

    Made by :meth:`TwistedCelery.events`, never directly.
    """

    def __init__(
        self, events: Events, callback: Callable[[dict[str, Any]], object], event_loop: EventLoop
    ) -> None:
        super().__init__(lambda _: self._running.cancel())
        #: The stream itself, for its ``state``, ``dropped`` and ``interruptions``.
        self.events: Events = events
        self._event_loop = event_loop
        self._running = for_each(lambda: events, callback, event_loop)
        self._running.addBoth(self._end)

    def started(self) -> Deferred[None]:
        """Return a Deferred that fires once no event is missed any more."""
        return self._event_loop.deferred(self.events.start())

    def _end(self, outcome: Any) -> None:
        close_soon(self.events)
        if not self.called:
            self.callback(outcome)
