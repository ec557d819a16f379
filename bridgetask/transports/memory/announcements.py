"""What the worker in this process has stored of tasks, told to the sessions that listen."""

from __future__ import annotations

import threading
from itertools import count
from typing import NamedTuple, Protocol
from weakref import ref

__all__ = ["Announcements", "Report", "ReportListener"]


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


class Announcements:
    """Tells all listeners what is stored of tasks, in one order. Any thread may use it."""

    def __init__(self) -> None:
        self._latest: dict[str, Report] = {}
        self._numbers = count()
        self._listeners: tuple[ref[ReportListener], ...] = ()
        self._lock = threading.RLock()

    def announce(self, task_id: str, payload: bytes) -> None:
        """Tell what is stored of a task by now."""
        with self._lock:
            report = Report(task_id, payload, next(self._numbers))
            self._latest[task_id] = report
            for reference in self._listeners:
                listener = reference()
                if listener is not None:
                    listener.take(report)

    def latest(self, task_id: str) -> Report | None:
        """Return what was told of a task last, or None."""
        return self._latest.get(task_id)

    def forget(self, task_id: str) -> None:
        """Keep no longer what was told of a task."""
        self._latest.pop(task_id, None)

    def add_listener(self, listener: ReportListener) -> None:
        """Tell a listener, too, from now on. It is not kept alive by that."""
        with self._lock:
            self._listeners = (*self._others(listener), ref(listener))

    def remove_listener(self, listener: ReportListener) -> None:
        """Tell a listener nothing any more."""
        with self._lock:
            self._listeners = self._others(listener)

    def _others(self, listener: ReportListener) -> tuple[ref[ReportListener], ...]:
        return tuple(each for each in self._listeners if each() not in (None, listener))
