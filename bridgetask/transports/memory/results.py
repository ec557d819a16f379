"""Results that the worker in this process announces."""

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
from .announcements import Announcements, Report
from .unfinished import Unfinished

__all__ = ["MemoryResults"]


class MemoryResults:
    """Delivers what a worker announces, in turns of the event loop."""

    #: Results are delivered as they come about.
    ready = True

    def __init__(
        self, announcements: Announcements, unfinished: Unfinished, context: SessionContext
    ) -> None:
        self._unfinished = unfinished
        self._decoder = context.codec.decoder
        self._outcomes = context.outcomes
        self._loop = context.loop
        self._context = copy_context()  # that of a task would have the app redirected
        #: The number of the report that an outcome got last.
        self._delivered: WeakKeyDictionary[Outcome, int] = WeakKeyDictionary()
        self._announcements = announcements
        announcements.add_listener(self)

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
            report = self._announcements.latest(task_id)
            if outcome is not None and outcome.delivery is None and report is not None:
                self.take(report)

    async def fetch(self, task_ids: Sequence[str]) -> None:
        """Return when the latest reports of tasks are delivered, and all that precede them."""
        for task_id in task_ids:
            report = self._announcements.latest(task_id)
            if report is not None:
                self.take(report)
        taken = Completion()
        self._soon(taken.complete)
        await taken.wait()

    async def prepare(self) -> None:
        """Do nothing: results are delivered as they come about."""

    async def settle(self) -> None:
        await self._unfinished.none_left()

    async def close(self) -> None:
        """Do nothing: what still runs may report until this is aborted."""

    def abort(self) -> None:
        self._announcements.remove_listener(self)
