"""Celery's own Redis backend, with what it would write recorded instead of written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...wire.message import StoreWrite
from .settings import redis_backend

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["recording_backend"]


def recording_backend(app: Celery, view: Celery, record: Callable[[StoreWrite], None]) -> Any:
    """Return the app's Redis backend, with a client that records its commands.

    Keys, encoding, expiry and all that is written stay Celery's, and the commands redis-py's.

    :param view: the app that the backend believes to belong to.
    :param record: takes what would have been written.
    """
    backend_class, url = redis_backend(app)
    return _recording_redis(backend_class, record)(app=view, url=url)


def _recording_redis(backend_class: Any, record: Callable[[StoreWrite], None]) -> Any:
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
