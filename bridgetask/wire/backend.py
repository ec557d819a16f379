"""What Celery asks of a result backend while it sends, recorded or kept in place of being done."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from celery.backends.base import KeyValueStoreBackend
from kombu.utils.encoding import ensure_bytes

from ..errors import InvalidOption
from ..settings import IN_MEMORY
from ..transports.redis.settings import redis_backend
from .message import StoreWrite

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["MemoryBackend", "Report", "recording_backend"]


class RecordingBackend:
    """The backend of ``rpc://``, and in place of none: it stores nothing."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: the transport that receives results makes its own preparations."""

    def ensure_chords_allowed(self) -> None:
        """Refuse a chord, and a group that a task follows, which is one.

        :raises InvalidOption: always.
        """
        _refuse_chord()

    def apply_chord(self, header_result_args: Any, body: Any, **options: Any) -> None:
        """Refuse a chord."""
        _refuse_chord()


def _refuse_chord() -> NoReturn:
    raise InvalidOption(
        "task",
        "can't be a chord, nor a group that a task follows: only a result backend that can"
        " count its parts runs those, as redis:// does",
    )


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
            _refuse_chord()

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


def recording_backend(
    app: Celery, view: Celery, record: Callable[[StoreWrite], None], kind: str
) -> Any:
    """Return the backend of the view.

    :param record: takes what would have been written.
    :param kind: what ``ResultSettings.backend`` says.
    """
    if kind == IN_MEMORY:
        return MemoryBackend(app)
    if kind != "redis":
        return RecordingBackend()
    backend_class, url = redis_backend(app)
    return _recording_redis(backend_class, record)(app=view, url=url)


def _recording_redis(backend_class: Any, record: Callable[[StoreWrite], None]) -> Any:
    """Return Celery's Redis backend, with a client that records its commands.

    Keys, encoding, expiry and all that is written stay Celery's, and the commands redis-py's.
    """

    class RecordingRedis(backend_class):  # type: ignore[misc]
        def on_task_call(self, producer: Any, task_id: str) -> None:
            """Do nothing: the transport that receives results makes its own preparations."""

        def _get_client(self) -> Any:
            return _recording_client(super()._get_client(), record)

        def _get_pool(self, **_: Any) -> Any:
            return self.redis.ConnectionPool()  # never asked for a connection

    return RecordingRedis


def _recording_client(client_class: Any, record: Callable[[StoreWrite], None]) -> Any:
    class RecordingClient(client_class):  # type: ignore[misc]
        def execute_command(self, *command: Any, **_: Any) -> None:
            record(StoreWrite((command,)))

        def pipeline(self, *args: Any, **options: Any) -> Any:
            pipeline = super().pipeline(*args, **options)

            def execute(*_: Any) -> None:
                commands = tuple(command for command, _ in pipeline.command_stack)
                record(StoreWrite(commands))

            pipeline.execute = execute
            return pipeline

    return RecordingClient
