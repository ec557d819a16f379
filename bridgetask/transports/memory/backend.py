"""A result backend that is kept in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import ref

from celery.backends.base import KeyValueStoreBackend
from kombu.utils.encoding import ensure_bytes

from ...wire.backend import refuse_chord

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["MemoryBackend", "Report", "ReportListener", "TaskRun"]


class Report(NamedTuple):
    """What a worker stored of a task."""

    task_id: str
    payload: bytes
    #: Counts what was announced: what was announced later has a higher one.
    number: int


class ReportListener(Protocol):
    """Takes what workers report of tasks."""

    def take(self, report: Report) -> None:
        """Take a report. Called in whichever thread announces it, in order."""


class TaskRun:
    """One run of a task: what it has reported so far.

    How the task ends is held back, and so is what is reported after that, until the run is over:
    by then all is done that goes with the end, such as ``after_return``, links and signals.
    """

    __slots__ = ("ends", "has_ended", "held", "over", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id: str = task_id
        #: Whether Celery has begun to report how the task ended.
        self.ends: bool = False
        #: Whether a final state of the task was reported.
        self.has_ended: bool = False
        #: Whether there is nothing to hold back any more.
        self.over: bool = False
        #: What was held back: ids of tasks, and what is stored of them.
        self.held: list[tuple[str, bytes]] = []


#: The run that this context belongs to.
_current: ContextVar[TaskRun | None] = ContextVar("run", default=None)


class MemoryBackend(KeyValueStoreBackend):
    """Celery's backend of keys and values, with those kept in this process.

    Any thread may use it. What is stored of tasks is announced to listeners, and what was announced
    last can be asked for.

    :param chords: whether it runs chords.
    """

    implements_incr = True
    supports_failure_expires = supports_result_compression = True

    def __init__(self, app: Celery, *, chords: bool = True) -> None:
        self._chords = chords
        # Each operation on these is atomic.
        self._kept: dict[bytes, bytes] = {}
        self._counts: dict[bytes, count[int]] = {}
        #: By their keys, as everything that is kept.
        self._announced: dict[bytes, Report] = {}
        self._numbers = count()
        #: Held while something is announced, so that listeners take it in order.
        self._announcing = threading.RLock()
        self._listeners: tuple[ref[ReportListener], ...] = ()
        super().__init__(app=app)

    # What Celery asks for.

    def get(self, key: Any) -> bytes | None:
        """Return what is kept under a key, or None."""
        return self._kept.get(key)

    def key_of(self, task_id: str) -> bytes:
        """Return the key that what is stored of a task is kept under."""
        key: Any = self.get_key_for_task(task_id)
        return ensure_bytes(key)

    def set(self, key: Any, value: bytes | str) -> None:
        """Keep something."""
        self._kept[key] = ensure_bytes(value)

    def incr(self, key: Any) -> int:
        """Count."""
        return next(self._counts.setdefault(key, count(1)))

    def delete(self, key: Any) -> None:
        """Keep it no longer."""
        self._kept.pop(key, None)
        self._counts.pop(key, None)
        self._announced.pop(key, None)

    def ensure_chords_allowed(self) -> None:
        """Refuse a chord where the configured backend can't run any."""
        if not self._chords:
            refuse_chord()

    def wait_for(self, task_id: str, *args: Any, **options: Any) -> Any:
        """Return what is stored of a task that has ended.

        :raises RuntimeError: it has not. It runs after the one that waits, if at all.
        """
        meta: Any = self.get_task_meta(task_id)
        if meta["status"] not in self.READY_STATES:
            raise RuntimeError(f"task {task_id} can't be waited for within a task")
        return meta

    def mark_as_done(self, task_id: str, *args: Any, **options: Any) -> None:
        """Note that a task has succeeded."""
        self._begin_to_end(task_id)
        super().mark_as_done(task_id, *args, **options)

    def mark_as_failure(self, task_id: str, *args: Any, **options: Any) -> None:
        """Note that a task has failed."""
        self._begin_to_end(task_id)
        super().mark_as_failure(task_id, *args, **options)

    def mark_as_revoked(self, task_id: str, *args: Any, **options: Any) -> None:
        """Note that a task will not be run."""
        self._begin_to_end(task_id)
        super().mark_as_revoked(task_id, *args, **options)

    def _begin_to_end(self, task_id: str) -> None:
        run = _current.get()
        if run is not None and run.task_id == task_id:
            run.ends = True

    def _store_result(self, task_id: str, result: Any, state: str, *args: Any, **more: Any) -> Any:
        key = self.key_of(task_id)
        self._cache.pop(task_id, None)
        self._kept.pop(key, None)  # Celery drops what follows a success, were it by another run
        super()._store_result(task_id, result, state, *args, **more)  # type: ignore[misc]
        payload = self._kept.get(key)
        if payload is not None:  # else another thread has deleted it meanwhile
            self._report(task_id, state, payload)
        return result

    # Who is told.

    @contextmanager
    def run(self, task_id: str) -> Iterator[TaskRun]:
        """Run a task inside, and hold back how it ends: what was held is to be announced."""
        run = TaskRun(task_id)
        token = _current.set(run)
        try:
            yield run
        finally:
            _current.reset(token)
            with self._announcing:
                run.over = True

    def announce(self, task_id: str, payload: bytes) -> None:
        """Tell all listeners what is stored of a task."""
        with self._announcing:
            report = Report(task_id, payload, next(self._numbers))
            self._announced[self.key_of(task_id)] = report
            for reference in self._listeners:
                listener = reference()
                if listener is not None:
                    listener.take(report)

    def announced(self, task_id: str) -> Report | None:
        """Return what was announced of a task last, unless it was deleted since."""
        return self._announced.get(self.key_of(task_id))

    def add_listener(self, listener: ReportListener) -> None:
        """Announce reports to a listener from now on. It is not kept alive by that."""
        with self._announcing:
            self._listeners = (*self._others(listener), ref(listener))

    def remove_listener(self, listener: ReportListener) -> None:
        """Announce nothing to a listener any more."""
        with self._announcing:
            self._listeners = self._others(listener)

    def _others(self, listener: ReportListener) -> tuple[ref[ReportListener], ...]:
        return tuple(each for each in self._listeners if each() not in (None, listener))

    def _report(self, task_id: str, state: str, payload: bytes) -> None:
        """Announce what was stored of a task, at once or at the end of this context's run."""
        run = _current.get()
        with self._announcing:
            if run is None or run.over:
                self.announce(task_id, payload)
                return
            run.has_ended |= task_id == run.task_id and state in self.READY_STATES
            if run.ends:
                run.held.append((task_id, payload))
            else:
                self.announce(task_id, payload)
