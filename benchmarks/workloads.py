"""What every client is made to do, and what is measured while it does it.

A client is a process of its own. It is given one workload at a time, so that rounds of several
clients can take turns, and answers with figures: seconds, counts and bytes.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from .app import HELD, QUEUE

__all__ = ["RELEASE", "WORKLOADS", "AsyncClient", "EventLoop", "argument", "measured", "memory"]

_PROJECT = Path(__file__).resolve().parent.parent
#: Seconds between the ticks by which a stalled event loop shows.
_TICK = 0.001
#: How many calls a turn of the event loop makes, where it should not be stalled by making them.
_A_TURN = 10

#: The arguments by which the replier is told to answer, or no longer, what is held.
RELEASE, HOLD = "release", "hold"


class AsyncClient(Protocol):
    """A client that is used from coroutines."""

    def call(self, *args: Any, queue: str = ...) -> Awaitable[Any]:
        """Call the task and return its result."""

    def send(self, *args: Any) -> Awaitable[Any]:
        """Send the task, with no result; return when that is as sure as it gets."""

    def group(self, size: int) -> Awaitable[Any]:
        """Call a group of ``size`` tasks and return its results."""

    def park(self, *args: Any) -> Awaitable[Any]:
        """Send a task that nobody answers; return its handle."""


class EventLoop(Protocol):
    """asyncio or Twisted."""

    def sleep(self, seconds: float) -> Awaitable[Any]:
        """Wait."""

    def gather(self, coroutines: Iterable[Coroutine[Any, Any, Any]]) -> Awaitable[Any]:
        """Run coroutines beside each other."""

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        """Run a coroutine, from now on."""


@contextmanager
def measured(count: int) -> Iterator[dict[str, Any]]:
    """Take the time and this process's CPU time for ``count`` tasks, and its peak memory so far."""
    gc.collect()
    figures: dict[str, Any] = {"count": count}
    began, cpu = time.perf_counter(), time.process_time()
    yield figures
    cpu = time.process_time() - cpu
    figures["seconds"] = time.perf_counter() - began
    figures["cpu"] = cpu
    unit = 1 if sys.platform == "darwin" else 1024
    figures["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory() -> int:
    """Return the resident memory of this process in bytes."""
    import psutil

    gc.collect()
    resident: int = psutil.Process().memory_info().rss
    return resident


def argument(size: int) -> tuple[Any, Any]:
    """Return the task's arguments, about ``size`` bytes of them."""
    return ("x" * size if size else 1), 2


class Ticker:
    """Measures by how much the event loop is late."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._stopped = False
        self.late: list[float] = []
        #: Seconds of CPU that the loop used from tick to tick: its lateness on an idle machine.
        self.busy: list[float] = []

    async def __aenter__(self) -> Ticker:
        self._ticking = self._loop.start(self._tick())
        return self

    async def _tick(self) -> None:
        clock = time.perf_counter
        while not self._stopped:
            due, cpu = clock() + _TICK, time.thread_time()
            await self._loop.sleep(_TICK)
            self.late.append(clock() - due)
            self.busy.append(time.thread_time() - cpu)

    async def __aexit__(self, *exc: object) -> None:
        self._stopped = True
        await self._ticking


async def one_by_one(client: AsyncClient, loop: EventLoop, count: int) -> dict[str, Any]:
    """Call a task, wait for its result, call the next."""
    latencies = []
    with measured(count) as figures:
        for number in range(count):
            began = time.perf_counter()
            await client.call(number, 2)
            latencies.append(time.perf_counter() - began)
    return {**figures, "latencies": latencies}


async def burst(
    client: AsyncClient, loop: EventLoop, count: int, window: int, size: int = 0
) -> dict[str, Any]:
    """Call many tasks, ``window`` of them at a time, with ``size`` bytes of arguments."""
    first, second = argument(size)

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await client.call(first, second)

    with measured(count) as figures:
        await loop.gather(caller(len(range(at, count, window))) for at in range(window))
    return figures


async def flood(client: AsyncClient, loop: EventLoop, count: int, held: bool) -> dict[str, Any]:
    """Make ``count`` calls while a ticker watches.

    :param held: whether to have all of them in flight before any is answered.
    """
    calls = []

    async def call(number: int) -> None:
        await client.call(number, 2, queue=HELD if held else QUEUE)

    async with Ticker(loop) as ticker:
        with measured(count) as figures:
            for number in range(count):
                calls.append(loop.start(call(number)))
                if number % _A_TURN == 0:
                    await loop.sleep(0)
            if held:
                await client.call(RELEASE, 2)
            for each in calls:
                await each
    if held:
        await client.call(HOLD, 2)
    return {**figures, "late": ticker.late}


async def steady(
    client: AsyncClient, loop: EventLoop, rate: float, seconds: float
) -> dict[str, Any]:
    """Call ``rate`` tasks a second, whatever becomes of them; latencies count from their time."""
    count = max(1, int(rate * seconds))
    latencies: list[float] = []
    clock = time.perf_counter

    async def call(due: float) -> None:
        await client.call(1, 2)
        latencies.append(clock() - due)

    async with Ticker(loop) as ticker:
        with measured(count) as figures:
            began, calls = clock(), []
            for number in range(count):
                due = began + number / rate
                if (early := due - clock()) > 0:
                    await loop.sleep(early)
                calls.append(loop.start(call(due)))
            for each in calls:
                await each
    return {**figures, "latencies": latencies, "late": ticker.late}


async def groups(client: AsyncClient, loop: EventLoop, count: int, size: int) -> dict[str, Any]:
    """Call groups of ``size`` tasks, one group after the other."""
    with measured(count * size) as figures:
        for _ in range(count):
            await client.group(size)
    return figures


async def send(client: AsyncClient, loop: EventLoop, count: int, window: int) -> dict[str, Any]:
    """Send many tasks, ``window`` of them at a time, and wait for no results."""

    async def sender(first: int) -> None:
        for number in range(first, count, window):
            await client.send(number, 2)

    with measured(count) as figures:
        await loop.gather(sender(first) for first in range(window))
    return figures


async def send_one_by_one(client: AsyncClient, loop: EventLoop, count: int) -> dict[str, Any]:
    """Send a task, wait until it is sent, send the next."""
    return await send(client, loop, count, 1)


async def pending(
    client: AsyncClient, loop: EventLoop, levels: list[int], count: int, window: int
) -> dict[str, Any]:
    """Let ever more results be pending: what they hold, and what a burst costs beside them."""
    parked: list[Any] = []

    async def park(calls: int) -> None:
        for _ in range(calls):
            parked.append(await client.park(1, 2))

    before, steps = memory(), []
    for level in levels:
        missing = level - len(parked)
        await loop.gather(park(len(range(at, missing, 100))) for at in range(100))
        held = memory() - before
        bursts = [await burst(client, loop, count, window) for _ in range(5)]
        steps.append({"pending": level, "bytes": held / level, "bursts": bursts})
    return {"steps": steps}


async def profile(client: AsyncClient, loop: EventLoop, count: int, window: int) -> dict[str, Any]:
    """Do a burst under the profiler: the 20 functions with the most time of their own."""
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    await burst(client, loop, count, window)
    profiler.disable()
    statistics: Any = pstats.Stats(profiler)
    total = statistics.total_tt
    rows = [
        {
            "function": _named(*function),
            "calls": calls / count,
            "us": own / count * 1e6,
            "share": own / total,
        }
        for function, (_, calls, own, _, _) in statistics.stats.items()
    ]
    rows.sort(key=lambda row: -float(row["us"]))
    packages: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, _) in statistics.stats.items():
        packages[_package(file)] += own / count * 1e6
    return {"rows": rows[:20], "packages": dict(packages.most_common())}


def _package(file: str) -> str:
    if file == "~":
        return "built-in functions"
    parts = Path(file).parts
    for folder in ("site-packages", _PROJECT.name):
        if folder in parts:
            return parts[parts.index(folder) + 1].removesuffix(".py")
    return "standard library"


def _named(file: str, line: int, name: str) -> str:
    if file == "~":
        return name.strip("<>")
    path = Path(file)
    return f"{path.parent.name}/{path.name}: {name}"


WORKLOADS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "send": send,
    "send_one_by_one": send_one_by_one,
    "one_by_one": one_by_one,
    "burst": burst,
    "flood": flood,
    "steady": steady,
    "large": burst,
    "groups": groups,
    "pending": pending,
    "profile": profile,
}
