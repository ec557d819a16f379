"""Something that happens once, and that any number of tasks can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Completion"]


class Completion:
    """A one-shot outcome: done, or failed with an error.

    Unlike an ``asyncio.Future`` it can be made without an event loop, cancelling one who waits
    touches nobody else, and an error that nobody asks for makes no noise.
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
        """Whether somebody is waiting."""
        return bool(self._waiters)

    def complete(self, error: BaseException | None = None) -> None:
        """Wake all who wait. A later call corrects the outcome for whoever waits from then on."""
        self.done = True
        self.error = error
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def reopen(self) -> None:
        """Be open again, after a failure."""
        self.done, self.error = False, None

    def then(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which may not raise, once this is done: at once if it is."""
        if self.done:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def enter(self) -> asyncio.Future[None]:
        """Return a future that is done once this is. To be followed by :meth:`leave`."""
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """Take note that nobody waits for what :meth:`enter` returned any more."""
        assert self._waiters is not None
        self._waiters.remove(waiter)

    def check(self) -> None:
        """Raise the error that this failed with, if it did."""
        if self.error is not None:
            self.raised = True
            # One error may fail any number of results. It may not grow with each that it is raised
            # for, nor hold the frames of all who waited.
            raise self.error.with_traceback(None)

    async def wait(self) -> None:
        """Return once this is done.

        Cancelling it affects nobody else.

        :raises BaseException: the error that this failed with.
        """
        if not self.done:
            waiter = self.enter()
            try:
                await waiter
            finally:
                self.leave(waiter)
        self.check()
