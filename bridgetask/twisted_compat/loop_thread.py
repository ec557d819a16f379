"""The event loop in a background thread, for every reactor but asyncio's."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from ..errors import ClientClosed
from .event_loops import EventLoop

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread(EventLoop):
    """An event loop in a background thread. All clients of the process share one.

    What happens on the loop comes back to the reactor by ``callFromThread``. The thread ends when
    the last client has released it.
    """

    _lock = threading.Lock()
    _shared: LoopThread | None = None

    @classmethod
    def acquire(cls, reactor: Any) -> LoopThread:
        """Return the shared one, which this starts if there is none. Release it in the end."""
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
        #: Whether the loop ends, or has ended: it can run nothing any more.
        self._ending = False
        self._running: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._serve, name="bridgetask loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            # The Deferreds of tasks that still run would never fire otherwise.
            self.loop.run_until_complete(_cancel_all_others())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    @property
    def usable(self) -> bool:
        return self._process == os.getpid()  # threads do not survive a fork

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self.loop.call_soon_threadsafe(function, *args)

    def in_reactor(self, function: Callable[..., object]) -> Callable[..., object]:
        return partial(self._reactor.callFromThread, function)

    def run(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | Failure], object]
    ) -> Callable[[], None]:
        # Needs no lock: only the reactor's thread calls this, and release().
        if self._ending:
            coroutine.close()
            done(Failure(_loop_ended()))
            return lambda: None
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            task = self.loop.create_task(coroutine)
            self._running.add(task)  # asyncio does not hold a task that waits
            task.add_done_callback(finished)

        def finished(task: asyncio.Task[T]) -> None:
            self._running.discard(task)
            self._reactor.callFromThread(done, self._outcome(task))

        def cancel() -> None:
            if self._ending:
                return  # the end of the loop cancels the task, too
            # The loop calls functions in order, so the task was started before this runs.
            self.call(lambda: task.cancel() if task is not None else None)

        self.call(start)
        return cancel

    def _outcome(self, task: asyncio.Task[T]) -> T | Failure:
        """Return a task's value, or a Failure. Once asked, asyncio logs no unretrieved error."""
        if task.cancelled():
            return Failure(_loop_ended() if self._ending else CancelledError())
        error = task.exception()
        return task.result() if error is None else Failure(error)

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            type(self)._shared = None
        self._ending = True
        self.call(self.loop.stop)


def _loop_ended() -> ClientClosed:
    return ClientClosed("the client was closed, and its event loop has ended")


async def _cancel_all_others() -> None:
    """Cancel all tasks but this one, and return once they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
