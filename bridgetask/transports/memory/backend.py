"""A result backend that is kept in this process."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from celery.backends.base import KeyValueStoreBackend
from kombu.utils.encoding import ensure_bytes

from ...wire.backend import refuse_chord
from .announcements import Announcements
from .task_run import current_run

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["MemoryBackend"]


class MemoryBackend(KeyValueStoreBackend):
    """Celery's backend of keys and values, with those kept in this process.

    Any thread may use it. What is stored of tasks is announced: at once, but for how the task ends
    that runs in this context.

    :param chords: whether it runs chords.
    """

    implements_incr = True
    supports_failure_expires = supports_result_compression = True

    def __init__(self, app: Celery, *, chords: bool = True) -> None:
        self._chords = chords
        # Each operation on these is atomic.
        self._kept: dict[bytes, bytes] = {}
        self._counts: dict[bytes, count[int]] = {}
        self.announcements: Announcements = Announcements()
        super().__init__(app=app)

    def get(self, key: Any) -> bytes | None:
        """Return what is kept under a key, or None."""
        return self._kept.get(key)

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
        _begin_to_end(task_id)
        super().mark_as_done(task_id, *args, **options)

    def mark_as_failure(self, task_id: str, *args: Any, **options: Any) -> None:
        """Note that a task has failed."""
        _begin_to_end(task_id)
        super().mark_as_failure(task_id, *args, **options)

    def mark_as_revoked(self, task_id: str, *args: Any, **options: Any) -> None:
        """Note that a task will not be run."""
        _begin_to_end(task_id)
        super().mark_as_revoked(task_id, *args, **options)

    def forget(self, task_id: str) -> None:
        """Keep nothing of a task any longer."""
        super().forget(task_id)
        self.announcements.forget(task_id)

    def _store_result(self, task_id: str, result: Any, state: str, *args: Any, **more: Any) -> Any:
        super().forget(task_id)  # Celery drops what follows a success, were it by another run
        super()._store_result(task_id, result, state, *args, **more)  # type: ignore[misc]
        payload = self.get(self.get_key_for_task(task_id))
        if payload is not None:  # else another thread has deleted it meanwhile
            run = current_run()
            final = state in self.READY_STATES
            if run is None or not run.report(task_id, payload, final=final):
                self.announcements.announce(task_id, payload)
        return result


def _begin_to_end(task_id: str) -> None:
    run = current_run()
    if run is not None:
        run.begin_to_end(task_id)
