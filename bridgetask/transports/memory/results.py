"""Results that the worker in this process has stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from weakref import WeakKeyDictionary

from ...core.completion import Completion
from ...core.outcomes import Outcome
from ...core.plugs import SessionContext
from ...errors import ResultUndecodable
from ...wire.message import StoreWrite
from .backend import MemoryBackend, Report
from .unfinished import Unfinished

__all__ = ["MemoryResults"]


class MemoryResults:
    """Delivers what a worker has announced, and answers for what was announced before."""

    #: Results are delivered as they come about.
    ready = True

    def __init__(
        self, backend: MemoryBackend, unfinished: Unfinished, context: SessionContext
    ) -> None:
        self._backend = backend
        self._unfinished = unfinished
        self._decoder = context.codec.decoder
        self._outcomes = context.outcomes
        self._loop = context.loop
        self._context = copy_context()  # that of a task would have the app redirected
        #: The number of the report that an outcome got last.
        self._delivered: WeakKeyDictionary[Outcome, int] = WeakKeyDictionary()
        backend.add_listener(self)

    def take(self, report: Report) -> None:
        """Deliver a report in a turn of the event loop. Called in any thread."""
        self._soon(partial(self._deliver, report))

    def _soon(self, function: Callable[[], object]) -> None:
        """Call a function in a turn of the event loop, after all that was announced before."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, context=self._context.copy())

    def _deliver(self, report: Report) -> None:
        outcome = self._outcomes.get(report.task_id)
        if outcome is not None:
            if self._delivered.get(outcome, -1) >= report.number:
                return  # it was read meanwhile
            self._delivered[outcome] = report.number
        try:
            self._outcomes.deliver(self._decoder.decode_stored(report.payload, report.task_id))
        except ResultUndecodable as error:
            self._outcomes.deliver_undecodable(error)

    def expect(self, task_ids: Sequence[str]) -> None:
        """Deliver what there is of tasks that were sent elsewhere, or before."""
        for task_id in task_ids:
            outcome = self._outcomes.get(task_id)
            report = self._backend.announced(task_id)
            if outcome is not None and outcome.delivery is None and report is not None:
                self.take(report)

    async def prepare(self) -> None:
        """Do nothing: results are delivered as they come about."""

    async def settle(self) -> None:
        await self._unfinished.none_left()

    async def watch(self, task_id: str) -> None:
        await self.fetch([task_id])

    async def fetch(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            report = self._backend.announced(task_id)
            if report is not None:
                self.take(report)
        taken = Completion()
        self._soon(taken.complete)
        await taken.wait()

    async def exists(self, task_id: str) -> bool:
        return self._backend.announced(task_id) is not None

    async def forget(self, task_id: str) -> None:
        self._backend.forget(task_id)

    async def read(self, key: bytes) -> bytes | None:
        return self._backend.get(key)

    async def write(self, writes: Sequence[StoreWrite]) -> None:
        """Do nothing: the backend has kept it already."""

    async def close(self) -> None:
        """Do nothing: what still runs may report until this is aborted."""

    def abort(self) -> None:
        self._backend.remove_listener(self)
