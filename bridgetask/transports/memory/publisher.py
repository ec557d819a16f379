"""Publishing to the worker in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import NoReturn

from ...core.delivery import Delivery
from ...core.publishing import OnAnswer, Sending
from ...wire.message import OutgoingMessage
from .control import MemoryControl
from .journal import Journal
from .runners import Runner
from .unfinished import Unfinished
from .worker import InProcessWorker, SentTask

__all__ = ["MemoryPublisher"]

logger: logging.Logger = logging.getLogger(__name__)


class MemoryPublisher:
    """Hands tasks to the worker in this process, and what those send as well."""

    per_turn = 1
    large = alone = 2**62
    is_open = True
    blocked: str | None = None

    def __init__(
        self,
        worker: InProcessWorker,
        runner: Runner,
        unfinished: Unfinished,
        journal: Journal,
        control: MemoryControl,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._worker = worker
        self._runner = runner
        self._unfinished = unfinished
        self._journal = journal
        self._control = control
        self._loop = loop
        self._context = copy_context()  # that of a task would have the app redirected
        self._on_answer: OnAnswer
        self._running: SentTask | None = None
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
        await self._unfinished.none_left()
        await self._runner.close()

    def abort(self) -> None:
        """Run no more tasks. One that runs is left alone: nothing can stop it."""
        if self._aborted:
            return
        self._aborted = True
        self._runner.abort()
        running = self._running
        if running is not None:
            logger.warning("Closing leaves %s[%s] running", running.name, running.id)

    # On the event loop:

    def _take(self, message: OutgoingMessage) -> None:
        try:
            task = self._worker.read(message)
        except Exception as error:  # a worker would drop it
            self._worker.fail(message.task_id or message.properties["correlation_id"], error)
            return
        if task is None:
            self._control.take(message)
            return
        self._journal.sent.append(task)
        self._unfinished.begin()
        self._runner.run(partial(self._run, message, task))

    def _take_all(self, messages: Sequence[OutgoingMessage]) -> None:
        if not self._aborted:
            for message in messages:
                self._take(message)

    # Where tasks run:

    def _run(self, message: OutgoingMessage, task: SentTask) -> None:
        """Run a task. What it has sent is taken before anybody is told how it ended."""
        self._running = task
        try:
            ran = self._worker.run(message, task.id)
            for sent in ran.sent:
                Delivery(task.name, sent.on_published).complete()
            self._on_loop(self._take_all, ran.sent)
            for report in ran.ends:
                self._worker.backend.announce(*report)
        except Exception:
            logger.exception("%s[%s] could not be run to its end", task.name, task.id)
        except BaseException as error:  # KeyboardInterrupt: it is the program's
            self._on_loop(_raise, error)
        finally:
            self._running = None
            self._on_loop(self._unfinished.end)

    def _on_loop(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in a turn of the event loop, after all that was to be called so far."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *args, context=self._context.copy())


def _raise(error: BaseException) -> NoReturn:
    raise error
