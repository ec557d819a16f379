"""Kinds of Deferreds that Twisted does not have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .event_loops import EventLoop

__all__ = ["QuietDeferred", "follower_of", "for_each"]

T = TypeVar("T")

#: The attribute of a Deferred that holds its callbacks: private since Twisted 25.5.
_CALLBACKS = "_callbacks" if "_callbacks" in vars(Deferred()) else "callbacks"


class QuietDeferred(Deferred[T]):
    """A Deferred that logs no unhandled error when it is cancelled: the canceller knows."""

    def cancel(self) -> None:
        """Fire with ``CancelledError`` at once."""
        fired = self.called
        super().cancel()
        if not fired:
            self._keep_quiet()

    @property
    def _used(self) -> bool:
        """Whether a callback, a coroutine or another Deferred waits for this one."""
        return bool(getattr(self, _CALLBACKS))

    def _keep_quiet(self) -> None:
        """Log nothing of the failure that this fired with. What a callback leaves is logged."""
        debug = getattr(self, "_debugInfo", None)
        if debug is not None:
            debug.failResult = None


def follower_of(deferred: Deferred[None]) -> Deferred[None]:
    """Return a new Deferred that fires when ``deferred`` does. Cancelling it cancels no other."""
    follower: Deferred[None] = Deferred()

    def fire(result: Any) -> Any:
        if not follower.called:
            follower.callback(None)
        return result

    deferred.addBoth(fire)
    return follower


def for_each(
    iterate: Callable[[], AsyncIterator[T]],
    callback: Callable[[T], object],
    event_loop: EventLoop,
) -> Deferred[None]:
    """Call ``callback`` with each item of an asynchronous iterator, in the reactor's thread.

    :param iterate: makes the iterator; called on the event loop.
    :returns: a Deferred that fires after the last item, or with the exception of the iterator or of
        the callback. Cancelling it ends the calls.
    """
    iterator: AsyncIterator[T] | None = None
    coming: Deferred[T]
    done: Deferred[None] = Deferred(lambda _: coming.cancel())

    async def following() -> T:
        nonlocal iterator
        if iterator is None:
            iterator = iterate()
        return await anext(iterator)

    # A Deferred for each item: one chain for all of them would grow with each.
    def one_more() -> None:
        nonlocal coming
        coming = event_loop.deferred(following())
        coming.addCallback(take)
        coming.addErrback(ended)

    def take(item: T) -> None:
        callback(item)
        if not done.called:  # the callback may have cancelled it
            one_more()

    def ended(failure: Failure) -> None:
        if not done.called:
            done.callback(None if failure.check(StopAsyncIteration) else failure)

    one_more()
    return done
