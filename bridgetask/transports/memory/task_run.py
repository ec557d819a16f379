"""One run of a task, and how what it reports is held back until it is over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["TaskRun", "current_run"]


class TaskRun:
    """One run of a task.

    How the task ends is held back, and so is what is reported after that, until the run is over:
    by then all is done that goes with the end, such as ``after_return``, links and signals.
    """

    def __init__(self, task_id: str) -> None:
        self.task_id: str = task_id
        #: Whether a final state of the task was reported.
        self.has_ended: bool = False
        #: What was held back: ids of tasks, and what is stored of them.
        self.held: list[tuple[str, bytes]] = []
        self._ends = False
        self._over = False
        self._lock = threading.Lock()  # a task may report in several threads

    def begin_to_end(self, task_id: str) -> None:
        """Hold back what is reported from now on, if it is this task that ends."""
        self._ends |= task_id == self.task_id

    def report(self, task_id: str, payload: bytes, *, final: bool) -> bool:
        """Take note of a report; return whether it is held back."""
        with self._lock:
            if self._over:
                return False
            self.has_ended |= final and task_id == self.task_id
            if self._ends:
                self.held.append((task_id, payload))
            return self._ends

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the run of the context, until it is over."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            with self._lock:
                self._over = True


_current: ContextVar[TaskRun | None] = ContextVar("run", default=None)


def current_run() -> TaskRun | None:
    """Return the run that this context belongs to. Contexts are copied, so it may be over."""
    return _current.get()
