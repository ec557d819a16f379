"""A place where a task waits for its test."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["LONG", "Gate"]

#: Seconds that something may take which takes none.
LONG = 30.0


class Gate:
    """A place in a task where it waits for the test, without the event loop."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self._reached.set()
        assert self._open.wait(LONG)

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, LONG)
