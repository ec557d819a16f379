"""Publishing to the worker in this process."""

from __future__ import annotations

import asyncio

from ...core.completion import Completion
from ...core.delivery import Delivery
from ...core.publishing import OnAnswer, Sending
from ...wire.message import OutgoingMessage
from .control import MemoryControl
from .journal import Journal
from .results import MemoryResults
from .worker import InProcessWorker, SentTask

__all__ = ["MemoryPublisher"]


class MemoryPublisher:
    """Runs each task in a turn of the event loop of its own, so that others get theirs."""

    per_turn = 1
    large = alone = 2**62
    is_open = True
    blocked: str | None = None

    def __init__(
        self,
        worker: InProcessWorker,
        journal: Journal,
        control: MemoryControl,
        results: MemoryResults,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._worker = worker
        self._journal = journal
        self._control = control
        self._results = results
        self._loop = loop
        self._on_answer: OnAnswer
        self._waiting = 0
        self._aborted = False

    def start(self, on_answer: OnAnswer) -> None:
        self._on_answer = on_answer

    def ready(self, message: OutgoingMessage) -> bool:
        return True

    async def connect(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def prepare(self, message: OutgoingMessage) -> None:
        """Do nothing: what the message requires is in the backend already."""

    def publish(self, sending: Sending) -> None:
        error = self._journal.send_error
        self._on_answer(sending, error)
        if error is None:
            self._take(sending.message)

    def flush(self) -> None:
        """Do nothing."""

    async def drain(self) -> None:
        """Do nothing."""

    def forget(self, sending: Sending) -> None:
        """Do nothing: it will be run all the same."""

    def retire(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Return when all that was sent has been run, and what that sent."""
        while self._waiting and not self._aborted:
            turn = Completion()
            self._loop.call_soon(turn.complete)  # after all that waits by now, which may send more
            await turn.wait()

    def abort(self) -> None:
        """Run no more tasks."""
        self._aborted = True

    def _take_next(self, message: OutgoingMessage) -> None:
        self._waiting -= 1
        if not self._aborted:
            self._take(message)

    def _take(self, message: OutgoingMessage) -> None:
        try:
            task = self._worker.read(message)
        except Exception as error:  # a worker would drop it
            self._worker.fail(message.task_id or message.properties["correlation_id"], error)
        else:
            if task is not None:
                self._run(message, task)
            else:
                self._control.take(message)
        for report in self._worker.reports():
            self._results.report(report.task_id, report.payload)

    def _run(self, message: OutgoingMessage, task: SentTask) -> None:
        """Run a task, and what it sends in later turns."""
        self._journal.sent.append(task)
        for sent in self._worker.run(message, task.id):
            Delivery(task.name, sent.on_published).complete()
            self._waiting += 1
            self._loop.call_soon(self._take_next, sent)
