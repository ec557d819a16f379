"""What is known of a task, or of a group. Nothing here waits or does I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any

from ..core.outcomes import Outcome
from ..wire.results import FAILURE, PENDING, SUCCESS

__all__ = ["State", "TaskState"]


class State(ABC):
    """What is known of a task or a group. It equals its id, and what has the same id and class."""

    __slots__ = ()

    @property
    @abstractmethod
    def id(self) -> str:
        """The id of the task or of the group."""

    @abstractmethod
    def ready(self) -> bool:
        """Return whether it has ended, well or not."""

    @abstractmethod
    def successful(self) -> bool:
        """Return whether it returned a value."""

    @abstractmethod
    def failed(self) -> bool:
        """Return whether it raised an exception."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return other.id == self.id
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id


class TaskState(State):
    """The latest update of a task."""

    __slots__ = ()

    #: What is known of the task. The class below this one has it.
    _outcome: Outcome
    #: The task's name, where the call said it.
    _name: str | None

    @property
    def id(self) -> str:
        """The task's id."""
        return self._outcome.task_id

    task_id = id

    @property
    def state(self) -> str:
        """The state that was reported last, named as in Celery; ``PENDING`` before any."""
        update = self._outcome.update
        return update.state if update is not None else PENDING

    status = state

    @property
    def result(self) -> Any:
        """The return value, the exception, or the meta of the last state; None before any."""
        update = self._outcome.update
        return update.result if update is not None else None

    @property
    def info(self) -> Any:
        """The same as :attr:`result`, as Celery has it."""
        return self.result

    @property
    def traceback(self) -> str | None:
        """The worker's traceback as text, if the task failed."""
        update = self._outcome.update
        return update.traceback if update is not None else None

    @property
    def name(self) -> str | None:
        """The task's name. Of a task that was sent elsewhere, only with ``result_extended``."""
        return self._name or self._meta("name")

    @property
    def args(self) -> Any:
        """The task's arguments, with ``result_extended``, or None."""
        return self._meta("args")

    @property
    def kwargs(self) -> Any:
        """The task's keyword arguments, with ``result_extended``, or None."""
        return self._meta("kwargs")

    @property
    def worker(self) -> str | None:
        """The name of the worker that ran the task, with ``result_extended``, or None."""
        worker: str | None = self._meta("worker")
        return worker

    @property
    def retries(self) -> int | None:
        """How many times the task was retried, with ``result_extended``, or None."""
        retries: int | None = self._meta("retries")
        return retries

    @property
    def queue(self) -> str | None:
        """The queue that the task came through, with ``result_extended``, or None."""
        queue: str | None = self._meta("queue")
        return queue

    @property
    def date_done(self) -> datetime | None:
        """The time when the task ended, in UTC; None where the backend does not keep that."""
        date = self._meta("date_done")
        return datetime.fromisoformat(date) if isinstance(date, str) else date

    def ready(self) -> bool:
        """Return whether the task has ended, well or not."""
        return self._outcome.final is not None

    def successful(self) -> bool:
        """Return whether the task returned a value."""
        return self.state == SUCCESS

    def failed(self) -> bool:
        """Return whether the task raised an exception."""
        return self.state == FAILURE

    def _meta(self, key: str) -> Any:
        update = self._outcome.update
        return update.meta.get(key) if update is not None else None
