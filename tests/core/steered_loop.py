"""An event loop whose clock a test moves, so that nothing waits and nothing depends on speed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["SteeredLoop"]

T = TypeVar("T")


class SteeredLoop(asyncio.SelectorEventLoop):
    """Runs until it would have to wait. Its time stands still unless it is moved.

    Callbacks that were due at the same time run in the order of asyncio's own loop.
    """

    def __init__(self) -> None:
        self._waits = _NeverWaits(self)
        self._now = 1000.0
        super().__init__(self._waits)
        #: What was reported to the loop's exception handler.
        self.reported: list[str] = []
        #: Every task that was ever made.
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_debug(True)
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self.reported.append(str(context)))

    def time(self) -> float:
        return self._now

    def idle(self) -> float | None:
        """Run all that can run by now; return in how many seconds more can, or None if never."""
        self.run_forever()
        return self._waits.timeout

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass. Each timer runs at its own time, with all that follows it."""
        until = self._now + seconds
        while (wait := self.idle()) is not None and self._now + wait <= until:
            self._now += wait
        self._now = until
        self.idle()

    def turn(self) -> None:
        """Run what can run by now, and not what that makes run."""
        self.call_soon(self.stop)
        self.run_forever()

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that needs no time and nobody else to end; return what it returns."""
        task = self.create_task(work)
        self.idle()
        if not task.done():
            task.cancel()
            self.idle()
            raise AssertionError("it still waits")
        return task.result()

    def check_nothing_left(self) -> None:
        """Fail if a task is left, or one of bridgetask's has failed, or anything was reported."""
        self.idle()
        assert [task for task in self.tasks if not task.done()] == []
        for task in self.tasks:
            if task.get_name().startswith("bridgetask"):
                assert task.cancelled() or task.exception() is None, task
        assert self.reported == []

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        self.tasks.append(task)
        return task


class _NeverWaits(selectors.SelectSelector):
    """Stops its loop where that would wait. A loop asks to wait only if nothing can run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        #: How many seconds the loop would have waited; None for ever.
        self.timeout: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.timeout = timeout
        if timeout is None or timeout > 0:
            self._loop.stop()
        return super().select(0)
