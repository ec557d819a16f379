"""What every client is made to do, and what is measured while it does it.

A client is a process of its own. It is given one workload at a time, so that rounds of several
clients can take turns, and answers with figures: seconds and counts.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["WORKLOADS", "AsyncClient", "measured"]

#: Seconds between the ticks by which a stalled event loop shows.
_TICK = 0.001


class AsyncClient(Protocol):
    """A client that is used from coroutines."""

    def call(self, *args: Any) -> Awaitable[Any]:
        """Call the task and return its result."""

    def send(self, *args: Any) -> Awaitable[Any]:
        """Send the task, with no result; return when that is as sure as it gets."""


@contextmanager
def measured(count: int) -> Iterator[dict[str, Any]]:
    """Take the time and this process's CPU time for ``count`` tasks."""
    gc.collect()
    figures: dict[str, Any] = {"count": count}
    began, cpu = time.perf_counter(), time.process_time()
    yield figures
    cpu = time.process_time() - cpu
    figures["seconds"] = time.perf_counter() - began
    figures["cpu"] = cpu


class Ticker:
    """Measures by how much the event loop is late."""

    def __init__(self) -> None:
        self.late: list[float] = []
        #: Seconds of CPU that the loop used from tick to tick: its lateness on an idle machine.
        self.busy: list[float] = []

    async def __aenter__(self) -> Ticker:
        self._task = asyncio.create_task(self._tick())
        return self

    async def _tick(self) -> None:
        clock = time.perf_counter
        while True:
            due, cpu = clock() + _TICK, time.thread_time()
            await asyncio.sleep(_TICK)
            self.late.append(clock() - due)
            self.busy.append(time.thread_time() - cpu)

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()


async def one_by_one(client: AsyncClient, count: int) -> dict[str, Any]:
    """Call a task, wait for its result, call the next."""
    latencies = []
    with measured(count) as figures:
        for number in range(count):
            began = time.perf_counter()
            await client.call(number, 2)
            latencies.append(time.perf_counter() - began)
    return {**figures, "latencies": latencies}


async def burst(client: AsyncClient, count: int, window: int) -> dict[str, Any]:
    """Call many tasks, ``window`` of them at a time."""

    async def caller(first: int) -> None:
        for number in range(first, count, window):
            await client.call(number, 2)

    with measured(count) as figures:
        await asyncio.gather(*(caller(first) for first in range(window)))
    return figures


async def stall(client: AsyncClient, count: int, window: int) -> dict[str, Any]:
    """Do a burst while a ticker watches the event loop."""
    async with Ticker() as ticker:
        figures = await burst(client, count, window)
    return {**figures, "late": ticker.late}


async def send(client: AsyncClient, count: int, window: int) -> dict[str, Any]:
    """Send many tasks, ``window`` of them at a time, and wait for no results."""

    async def sender(first: int) -> None:
        for number in range(first, count, window):
            await client.send(number, 2)

    with measured(count) as figures:
        await asyncio.gather(*(sender(first) for first in range(window)))
    return figures


WORKLOADS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    each.__name__: each for each in (one_by_one, burst, stall, send)
}
