"""Commands to workers, and their events, as Deferreds. It converts, and only converts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from ..asyncio_impl.events import Events
from .deferred import EventLoop, QuietDeferred, for_each

if TYPE_CHECKING:
    from .client import TwistedCelery

__all__ = ["DeferredEvents", "TwistedControl", "TwistedInspect"]


class _Deferring:
    """Answers for the methods of an asyncio object, each returning a Deferred.

    A ``callback`` among the arguments is called in the reactor's thread.
    """

    def __init__(self, tx_app: TwistedCelery, target: Any) -> None:
        self._tx_app = tx_app
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._target, name)

        @wraps(method)
        def deferred(*args: Any, **kwargs: Any) -> Deferred[Any]:
            args, kwargs = _calling_back(self._tx_app._acquired(), method, args, kwargs)
            return self._tx_app.run(method(*args, **kwargs))

        return deferred


class TwistedInspect(_Deferring):
    """Asks workers about themselves, by Deferreds: every method of :class:`bridgetask.Inspect`."""


class TwistedControl(_Deferring):
    """Commands to workers, as Deferreds: every method of :class:`bridgetask.Control`."""

    def __init__(self, tx_app: TwistedCelery) -> None:
        super().__init__(tx_app, tx_app.client.control)

    def inspect(self, *args: Any, **kwargs: Any) -> TwistedInspect:
        """Return what asks workers about themselves; see :meth:`bridgetask.Control.inspect`."""
        method = self._target.inspect
        args, kwargs = _calling_back(self._tx_app._acquired(), method, args, kwargs)
        return TwistedInspect(self._tx_app, method(*args, **kwargs))


def _calling_back(
    event_loop: EventLoop, method: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with its ``callback``, if any, run by the reactor."""
    bound = inspect.signature(method).bind(*args, **kwargs)
    for arguments in (bound.arguments, bound.arguments.get("kwargs", {})):
        if callable(arguments.get("callback")):
            arguments["callback"] = event_loop.in_reactor(arguments["callback"])
    return bound.args, bound.kwargs


class DeferredEvents(QuietDeferred[None]):
    """The stream of events: calls back with each, in the reactor's thread, until it is cancelled.

    It fires with what ends the stream, which also deletes the capture's queue: ``CancelledError``,
    :class:`bridgetask.errors.ClientClosed`, what made starting impossible, or what the callback
    raised.

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
        self.events._stream.close_soon()
        if not self.called:
            self.callback(outcome)
