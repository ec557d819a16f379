"""How coroutines become Deferreds: on the asyncio reactor's own loop, or on one loop thread.

The asyncio reactor runs an event loop, and a coroutine runs there as a task like any other. Every
other reactor gets one background thread with an event loop, for all clients of the process; what
comes out of it re-enters the reactor by ``callFromThread``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ..errors import InvalidOption

__all__ = ["EventLoop", "event_loop_for", "for_each", "install"]

T = TypeVar("T")


def install(*, uvloop: bool = False) -> None:
    """Install the asyncio reactor. Call this before anything imports ``twisted.internet.reactor``.

    :param uvloop: whether to run it on uvloop, which the extra ``bridgetask[uvloop]`` brings.
    :raises InvalidOption: uvloop is not installed.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: another reactor is installed.
    """
    from twisted.internet import asyncioreactor

    loop: asyncio.AbstractEventLoop
    if uvloop:
        try:
            import uvloop as implementation
        except ImportError:
            raise InvalidOption(
                "uvloop", "is not installed: pip install bridgetask[uvloop]"
            ) from None
        loop = implementation.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    try:
        asyncioreactor.install(loop)
    except BaseException:
        loop.close()
        raise


class EventLoop(Protocol):
    """An event loop as seen from the reactor's thread."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop itself."""

    @property
    def usable(self) -> bool:
        """Whether it runs in this process, rather than in one that this was forked from."""

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function`` in the loop's thread, in the order of the calls."""

    def deferred(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine on the loop.

        Cancelling the Deferred cancels the coroutine, and fires with Twisted's ``CancelledError``
        at once.
        """

    def release(self) -> None:
        """Let go of the loop, once nothing runs on it."""


def for_each(
    iterator: AsyncIterator[T], callback: Callable[[T], object], event_loop: EventLoop
) -> Deferred[None]:
    """Call ``callback`` with each item of an asynchronous iterator, in the reactor's thread.

    :returns: a Deferred that fires after the last one, or with what iterating or the callback
        raised; cancelling it ends the calls.
    """

    def one_more() -> Deferred[None]:
        coming: Deferred[T] = event_loop.deferred(_next(iterator))
        return coming.addCallback(take)

    def take(item: T) -> Deferred[None]:
        callback(item)
        return one_more()

    def ended(failure: Failure) -> None:
        failure.trap(StopAsyncIteration)

    return one_more().addErrback(ended)


async def _next(iterator: AsyncIterator[T]) -> T:
    return await anext(iterator)


def event_loop_for(reactor: Any) -> EventLoop:
    """Return the event loop to use with a reactor, to be released in the end."""
    if isinstance(reactor, AsyncioSelectorReactor):
        return _ReactorLoop(reactor)
    return _LoopThread.acquire(reactor)


class _ReactorLoop:
    """The event loop that the asyncio reactor runs."""

    def __init__(self, reactor: AsyncioSelectorReactor) -> None:
        # Twisted names it nowhere in public. Before the reactor runs there is no running loop
        # to ask for, and task.react calls its main function before that.
        self.loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
        self._tasks: set[asyncio.Task[Any]] = set()
        #: A reactor is forked before it runs, or not at all.
        self.usable: bool = True

    def call(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def deferred(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        # A task, always: asyncio.timeout needs one, and fromCoroutine can't await futures.
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)  # asyncio itself does not hold it
        task.add_done_callback(self._tasks.discard)
        inner: Deferred[T] = Deferred.fromFuture(task)
        outer: Deferred[T] = Deferred(lambda _: inner.cancel())
        inner.addBoth(_unless_called, outer)
        return outer

    def release(self) -> None:
        """Do nothing: the loop is the reactor's."""


class _LoopThread:
    """An event loop in a background thread, shared by all who acquire it."""

    _lock = threading.Lock()
    _shared: _LoopThread | None = None

    @classmethod
    def acquire(cls, reactor: Any) -> _LoopThread:
        with cls._lock:
            if cls._shared is None or not cls._shared.usable:
                cls._shared = cls(reactor)
            cls._shared._users += 1
            return cls._shared

    def __init__(self, reactor: Any) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._reactor = reactor
        self._process = os.getpid()
        self._users = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="bridgetask loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    @property
    def usable(self) -> bool:
        return self._process == os.getpid()  # a fork leaves threads behind

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self.loop.call_soon_threadsafe(function, *args)

    def deferred(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            task = self.loop.create_task(coroutine)
            self._tasks.add(task)  # asyncio itself does not hold it
            task.add_done_callback(finished)

        def finished(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            outcome = _outcome(task)
            self._reactor.callFromThread(_unless_called, outcome, outer)

        def cancel(_: Deferred[T]) -> None:
            # It was started before: the loop runs what it is given in order.
            self.call(lambda: task.cancel() if task is not None else None)

        outer: Deferred[T] = Deferred(cancel)
        self.call(start)
        return outer

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            type(self)._shared = None
        self.call(self.loop.stop)


def _outcome(task: asyncio.Task[T]) -> T | Failure:
    """Return what a task came to. Asking keeps asyncio from complaining that nobody did."""
    if task.cancelled():
        return Failure(CancelledError())
    error = task.exception()
    return task.result() if error is None else Failure(error)


def _unless_called(outcome: Any, outer: Deferred[Any]) -> None:
    """Fire the Deferred that a caller has, unless it was cancelled in the meantime."""
    if outer.called:
        return
    if isinstance(outcome, Failure) and outcome.check(asyncio.CancelledError):
        outcome = Failure(
            CancelledError()
        )  # asyncio's is a BaseException, and stops inlineCallbacks
    outer.callback(outcome)
