"""How coroutines become Deferreds: on the asyncio reactor's own loop, or on one loop thread.

The asyncio reactor runs an event loop, and a coroutine runs there as a task like any other. Every
other reactor gets one background thread with an event loop, for all clients of the process; what
comes out of it re-enters the reactor by ``callFromThread``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ..errors import ClientClosed, InvalidOption

__all__ = [
    "EventLoop",
    "QuietDeferred",
    "event_loop_for",
    "for_each",
    "install",
]

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


class EventLoop(ABC):
    """An event loop as seen from the reactor's thread."""

    #: The event loop itself.
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        #: Whether it ends, or has ended: nothing can be run on it any more.
        self._ending = False

    @property
    @abstractmethod
    def usable(self) -> bool:
        """Whether it runs in this process, rather than in one that this was forked from."""

    @abstractmethod
    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function`` in the loop's thread, in the order of the calls."""

    @abstractmethod
    def in_reactor(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return what calls ``function`` in the reactor's thread, from the loop's."""

    @abstractmethod
    def run(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | Failure], object]
    ) -> Callable[[], Any]:
        """Run a coroutine on the loop, and call ``done`` in the reactor's thread at its end.

        :param done: takes what the coroutine returned, or a Failure of what it raised.
        :returns: what cancels it.
        """

    @abstractmethod
    def release(self) -> None:
        """Let go of the loop, once nothing runs on it."""

    def deferred(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine on the loop.

        Cancelling the Deferred cancels the coroutine, and fires with Twisted's ``CancelledError``
        at once.
        """

        def done(outcome: T | Failure) -> None:
            if not outer.called:  # it may have been cancelled
                outer.callback(outcome)

        outer: Deferred[T] = Deferred(lambda _: cancel())
        cancel = self.run(coroutine, done)
        return outer

    def _start(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | Failure], object]
    ) -> asyncio.Task[T]:
        """Run a coroutine, and call ``done`` in the loop's thread.

        ``Deferred.fromFuture`` would fire with asyncio's CancelledError, which is a BaseException
        and stops inlineCallbacks, and only once the coroutine has come to its end.
        """

        def finished(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            done(self._outcome(task))

        # A task, always: asyncio.timeout needs one, and fromCoroutine can't await futures.
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)  # asyncio itself does not hold it
        task.add_done_callback(finished)
        return task

    def _outcome(self, task: asyncio.Task[T]) -> T | Failure:
        """Return what a task came to. Asking keeps asyncio from complaining that nobody did."""
        if task.cancelled():
            return Failure(_closed() if self._ending else CancelledError())
        error = task.exception()
        return task.result() if error is None else Failure(error)


#: Where a Deferred keeps its callbacks: since Twisted 25.5 in private.
_CALLBACKS = "_callbacks" if "_callbacks" in vars(Deferred()) else "callbacks"


class QuietDeferred(Deferred[T]):
    """A Deferred that makes no log when it is cancelled: who cancels knows."""

    def cancel(self) -> None:
        """Fire with ``CancelledError`` at once."""
        fired = self.called
        super().cancel()
        if not fired:
            self._keep_quiet()

    @property
    def _used(self) -> bool:
        """Whether anything waits for it: callbacks, a coroutine, another Deferred."""
        return bool(getattr(self, _CALLBACKS))

    def _keep_quiet(self) -> None:
        """Make no log of the failure that it has, unless it still has it after a callback."""
        debug = getattr(self, "_debugInfo", None)
        if debug is not None:
            debug.failResult = None


def for_each(
    iterate: Callable[[], AsyncIterator[T]],
    callback: Callable[[T], object],
    event_loop: EventLoop,
) -> Deferred[None]:
    """Call ``callback`` with each item of an asynchronous iterator, in the reactor's thread.

    :param iterate: makes the iterator, on the event loop.
    :returns: a Deferred that fires after the last one, or with what iterating or the callback
        raised; cancelling it ends the calls.
    """
    iterator: AsyncIterator[T] | None = None
    coming: Deferred[T]
    done: Deferred[None] = Deferred(lambda _: coming.cancel())

    async def following() -> T:
        nonlocal iterator
        if iterator is None:
            iterator = iterate()
        return await anext(iterator)

    # Not one chain of Deferreds: that would grow with each item.
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


def event_loop_for(reactor: Any) -> EventLoop:
    """Return the event loop to use with a reactor, to be released in the end."""
    if isinstance(reactor, AsyncioSelectorReactor):
        return _ReactorLoop(reactor)
    return _LoopThread.acquire(reactor)


class _ReactorLoop(EventLoop):
    """The event loop that the asyncio reactor runs."""

    #: A reactor is forked before it runs, or not at all.
    usable = True

    def __init__(self, reactor: AsyncioSelectorReactor) -> None:
        super().__init__()
        # Twisted names it nowhere in public. Before the reactor runs there is no running loop
        # to ask for, and task.react calls its main function before that.
        self.loop = reactor._asyncioEventloop

    def call(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def in_reactor(self, function: Callable[..., object]) -> Callable[..., object]:
        return function

    def run(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | Failure], object]
    ) -> Callable[[], Any]:
        return self._start(coroutine, done).cancel

    def release(self) -> None:
        """Do nothing: the loop is the reactor's."""


class _LoopThread(EventLoop):
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
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self._reactor = reactor
        self._process = os.getpid()
        self._users = 0
        self._thread = threading.Thread(target=self._serve, name="bridgetask loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            # Else the Deferreds of what still runs would never fire.
            self.loop.run_until_complete(_cancel_all_others())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    @property
    def usable(self) -> bool:
        return self._process == os.getpid()  # a fork leaves threads behind

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self.loop.call_soon_threadsafe(function, *args)

    def in_reactor(self, function: Callable[..., object]) -> Callable[..., object]:
        return partial(self._reactor.callFromThread, function)

    def run(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | Failure], object]
    ) -> Callable[[], Any]:
        # Known without a lock: this is called in the reactor's thread, and so is release().
        if self._ending:
            coroutine.close()
            done(Failure(_closed()))
            return lambda: None
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            task = self._start(coroutine, self.in_reactor(done))

        def cancel() -> None:
            if self._ending:
                return  # which cancels it, too
            # It was started before: the loop runs what it is given in order.
            self.call(lambda: task.cancel() if task is not None else None)

        self.call(start)
        return cancel

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            type(self)._shared = None
        self._ending = True
        self.call(self.loop.stop)


def _closed() -> ClientClosed:
    return ClientClosed("the client was closed, and its event loop has ended")


async def _cancel_all_others() -> None:
    """Cancel all tasks but this one, and return once they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
