"""An event that happens once. Any number of asyncio tasks can wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Completion"]


class Completion:
    """An event that happens once: it completes, or fails with an error.

    It differs from ``asyncio.Future`` in three ways: it can be made without an event loop,
    cancelling a waiter does not affect other waiters, and an error that is never retrieved is not
    logged.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_waiters",
        "done",
        "error",
        "left",
        "raised",
        "receivers",
    )

    def __init__(self) -> None:
        self.done: bool = False
        self.error: BaseException | None = None
        #: Of a message: whether it has left, so that a worker may have it.
        self.left: bool = False
        #: Of a message: how many have received it, where the broker tells.
        self.receivers: int | None = None
        #: Whether anybody was told of the error.
        self.raised: bool = False
        self._waiters: list[asyncio.Future[None]] | None = None
        self._callbacks: list[Callable[[], object]] | None = None

    @property
    def awaited(self) -> bool:
        """Whether a task is waiting for this."""
        return bool(self._waiters)

    def complete(self, error: BaseException | None = None) -> None:
        """Wake all waiters. A later call changes the outcome for those that wait from then on."""
        self.done = True
        self.error = error
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def reopen(self) -> None:
        """Become pending again, after a failure."""
        self.done, self.error = False, None

    def then(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which may not raise, once this is done, or now if it is done."""
        if self.done:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def enter(self) -> asyncio.Future[None]:
        """Return a future that is done once this is. The caller must :meth:`leave` afterwards."""
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """Remove a future that :meth:`enter` returned: its waiter is gone."""
        assert self._waiters is not None
        self._waiters.remove(waiter)

    def check(self) -> None:
        """Raise the error that this failed with, if it failed."""
        if self.error is not None:
            self.raised = True
            # One error may fail many results. Its traceback would grow each time that it is
            # raised, and would keep the frames of all waiters alive.
            raise self.error.with_traceback(None)

    async def wait(self) -> None:
        """Return once this is done.

        Cancelling this does not affect other waiters.

        :raises BaseException: the error that this failed with.
        """
        if not self.done:
            waiter = self.enter()
            try:
                await waiter
            finally:
                self.leave(waiter)
        self.check()
