"""Where the worker in this process runs its tasks: in a thread, or on the event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Protocol, TypeAlias

__all__ = ["InlineRunner", "Job", "Runner", "ThreadRunner"]

logger: logging.Logger = logging.getLogger(__name__)

Job: TypeAlias = Callable[[], None]

#: Seconds between two looks at a thread that is about to end.
_PAUSE = 0.001


class Runner(Protocol):
    """Runs jobs one after the other, in the order in which it is given them."""

    def run(self, job: Job) -> None:
        """Take a job, to be run later. It may not raise."""

    async def close(self) -> None:
        """Return when nothing is left that runs jobs. Called when all of them have been run."""

    def abort(self) -> None:
        """Run no more jobs. One that runs is left alone."""


class InlineRunner:
    """Runs each job in a turn of the event loop of its own, so that others get theirs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: deque[Job] = deque()
        self._turn: asyncio.Handle | None = None

    def run(self, job: Job) -> None:
        self._jobs.append(job)
        self._schedule()

    def _schedule(self) -> None:
        if self._turn is None and self._jobs:
            self._turn = self._loop.call_soon(self._run_next)

    def _run_next(self) -> None:
        self._turn = None
        job = self._jobs.popleft()
        self._schedule()  # first: the job may end the program
        job()

    async def close(self) -> None:
        """Do nothing: there is nothing left."""

    def abort(self) -> None:
        self._jobs.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None


class ThreadRunner:
    """Runs jobs in a thread of its own, which it starts with the first one.

    The thread ends when this is closed, aborted or collected. It does not hold up the end of the
    interpreter, whatever it runs.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, job: Job) -> None:
        if self._thread is None:
            # In an empty context, whatever this version of Python would have it inherit. And the
            # thread may not hold this, which ends it when it is collected.
            self._thread = threading.Thread(
                target=Context().run,
                args=(_run_jobs, self._jobs),
                name="bridgetask worker",
                daemon=True,
            )
            self._thread.start()
        self._jobs.put(job)

    async def close(self) -> None:
        self._jobs.put(None)
        pause = 0.0
        while self._thread is not None and self._thread.is_alive():
            await asyncio.sleep(pause)
            pause = _PAUSE

    def abort(self) -> None:
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)

    def __del__(self) -> None:
        self._jobs.put(None)


def _run_jobs(jobs: SimpleQueue[Job | None]) -> None:
    """Run jobs until there is None in place of one."""
    with _current_event_loop():
        while True:
            job = jobs.get()
            if job is None:
                return
            try:
                job()
            except Exception:  # the jobs after it are to be run
                logger.exception("A task could not be run")
            del job  # it would be held until the next one comes


@contextmanager
def _current_event_loop() -> Iterator[None]:
    """Have ``asyncio.get_event_loop()`` return a loop, as in the main thread of a worker's process.

    From Python 3.14 on it makes none there, either.
    """
    if sys.version_info >= (3, 14):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()
