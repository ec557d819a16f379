"""What Celery asks of a result backend while it sends, recorded in place of being done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption
from ..redis_settings import redis_backend

if TYPE_CHECKING:
    from celery import Celery

    from .recorder import Recorder

__all__ = ["StoreWrite", "recording_backend"]


@dataclass(frozen=True, slots=True)
class StoreWrite:
    """What Celery's backend would have written to its store, in one step."""

    #: Redis commands, each a tuple of what redis-py takes. Several are one transaction.
    commands: tuple[tuple[Any, ...], ...]


class RecordingBackend:
    """The backend of ``rpc://``, and in place of none: it stores nothing."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: the transport that receives results makes its own preparations."""

    def ensure_chords_allowed(self) -> None:
        """Refuse a chord, and a group that a task follows, which is one.

        :raises InvalidOption: always.
        """
        raise InvalidOption(
            "task",
            "can't be a chord, nor a group that a task follows: only a result backend that can"
            " count its parts runs those, as redis:// does",
        )

    def apply_chord(self, header_result_args: Any, body: Any, **options: Any) -> None:
        """Refuse a chord."""
        self.ensure_chords_allowed()


def recording_backend(app: Celery, view: Celery, recorder: Recorder, kind: str) -> Any:
    """Return the backend of the view.

    :param kind: what ``ResultSettings.backend`` says.
    """
    if kind != "redis":
        return RecordingBackend()
    backend_class, url = redis_backend(app)
    return _recording_redis(backend_class, recorder)(app=view, url=url)


def _recording_redis(backend_class: Any, recorder: Recorder) -> Any:
    """Return Celery's Redis backend, with a client that records its commands.

    Keys, encoding, expiry and all that is written stay Celery's, and the commands redis-py's.
    """

    class RecordingRedis(backend_class):  # type: ignore[misc]
        def on_task_call(self, producer: Any, task_id: str) -> None:
            """Do nothing: the transport that receives results makes its own preparations."""

        def _get_client(self) -> Any:
            return _recording_client(super()._get_client(), recorder)

        def _get_pool(self, **_: Any) -> Any:
            return self.redis.ConnectionPool()  # never asked for a connection

    return RecordingRedis


def _recording_client(client_class: Any, recorder: Recorder) -> Any:
    class RecordingClient(client_class):  # type: ignore[misc]
        def execute_command(self, *command: Any, **_: Any) -> None:
            recorder.add_write(StoreWrite((command,)))

        def pipeline(self, *args: Any, **options: Any) -> Any:
            pipeline = super().pipeline(*args, **options)

            def execute(*_: Any) -> None:
                commands = tuple(command for command, _ in pipeline.command_stack)
                recorder.add_write(StoreWrite(commands))

            pipeline.execute = execute
            return pipeline

    return RecordingClient
