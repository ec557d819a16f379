"""A result backend that is kept in this process."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.backends.base import KeyValueStoreBackend
from kombu.utils.encoding import ensure_bytes

from ...wire.backend import refuse_chord

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["MemoryBackend", "Report"]


class Report(NamedTuple):
    """What a worker stored of a task."""

    task_id: str
    state: str
    payload: bytes


class MemoryBackend(KeyValueStoreBackend):
    """Celery's backend of keys and values, with those kept in this process.

    :param chords: whether it runs chords.
    """

    implements_incr = True
    supports_failure_expires = supports_result_compression = True

    def __init__(self, app: Celery, *, chords: bool = True) -> None:
        self._chords = chords
        self._kept: dict[bytes, bytes] = {}
        self._counts: Counter[bytes] = Counter()
        #: What was stored of tasks and nobody has taken yet.
        self.reports: deque[Report] = deque()
        super().__init__(app=app)

    def get(self, key: Any) -> bytes | None:
        """Return what is kept under a key, or None."""
        return self._kept.get(key)

    def payload(self, task_id: str) -> bytes | None:
        """Return what is stored of a task, or None."""
        return self.get(self.get_key_for_task(task_id))

    def set(self, key: Any, value: bytes | str) -> None:
        """Keep something."""
        self._kept[key] = ensure_bytes(value)

    def incr(self, key: Any) -> int:
        """Count."""
        self._counts[key] += 1
        return self._counts[key]

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

    def _store_result(self, task_id: str, result: Any, state: str, *args: Any, **more: Any) -> Any:
        self.forget(task_id)  # Celery drops what follows a success, were it by another run
        super()._store_result(task_id, result, state, *args, **more)  # type: ignore[misc]
        payload = self.payload(task_id)
        assert payload is not None
        self.reports.append(Report(task_id, state, payload))
        return result
