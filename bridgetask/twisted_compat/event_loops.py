"""What this package asks of an event loop, whatever reactor the program runs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["EventLoop"]

T = TypeVar("T")


class EventLoop(ABC):
    """An event loop as the reactor's thread sees it."""

    #: The event loop itself.
    loop: asyncio.AbstractEventLoop

    @property
    @abstractmethod
    def usable(self) -> bool:
        """Whether the loop runs in this process, rather than in the one that forked this one."""

    @abstractmethod
    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` in the loop's thread. Functions run in the order of the calls."""

    @abstractmethod
    def in_reactor(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return a function for the loop's thread that calls ``function`` in the reactor's."""

    @abstractmethod
    def run(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | Failure], object]
    ) -> Callable[[], None]:
        """Run a coroutine on the loop, and call ``done`` in the reactor's thread when it has ended.

        A cancelled coroutine ends with a Failure of Twisted's ``CancelledError``, not of asyncio's:
        that one is a BaseException, which ``inlineCallbacks`` does not catch.

        :param done: called with the coroutine's value, or with a Failure of its exception.
        :returns: a function that cancels the coroutine.
        """

    @abstractmethod
    def release(self) -> None:
        """Give the loop back. The caller runs nothing on it from now on."""

    def deferred(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine on the loop, and return a Deferred of its outcome.

        Cancelling the Deferred cancels the coroutine. The Deferred fires with Twisted's
        ``CancelledError`` at once, and does not wait until the coroutine has ended.
        """

        def done(outcome: T | Failure) -> None:
            if not outer.called:  # else it was cancelled before
                outer.callback(outcome)

        outer: Deferred[T] = Deferred(lambda _: cancel())
        cancel = self.run(coroutine, done)
        return outer
