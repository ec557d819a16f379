"""The client for tests: it sends to a worker in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..asyncio_impl.client import Client
from ..core.completion import Completion
from ..errors import SendError
from ..settings import backend_name
from ..transports.memory.control import event_message
from ..transports.memory.journal import Journal
from ..transports.memory.plug import MemoryBroker, MemoryResultBackend
from ..transports.memory.worker import SentTask
from ..transports.plugs import Plugs

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["InMemoryClient", "SentTask"]


class InMemoryClient(Client):
    """A :class:`bridgetask.Client` that sends to a worker in this process.

    :param app: the Celery app. Nothing connects to its broker and its backend: any will do, or
        none. Results are stored, and chords run; by ``rpc://`` neither is so, as in earnest.
    :param results: task names -> what to give instead of running the task: a value, an exception
        to raise, or a callable to run in its place.
    :param replies: command names -> what the worker replies: a value, or a callable that gets the
        command's arguments. It answers ``ping``, ``registered``, and with nothing to what asks for
        tasks and queues; to all others it says that nothing was done.
    :param inline: whether tasks are run on the event loop, each in a turn of its own, rather than
        in a thread. The loop then stands still while one runs.
    :param options: those of :class:`bridgetask.Client`.
    """

    def __init__(
        self,
        app: Celery,
        *,
        results: Mapping[str, Any] | None = None,
        replies: Mapping[str, Any] | None = None,
        inline: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self._journal = Journal()
        self._results = dict(results or {})
        self._replies = dict(replies or {})
        self._inline = inline

    @property
    def sent(self) -> list[SentTask]:
        """What was sent, in order: by the program, and by tasks, as the next one of a chain is.

        What a task sends is in it from the end of the task on.
        """
        return self._journal.sent

    @property
    def commands(self) -> list[str]:
        """Commands that were sent to workers, such as ``revoke``, by name."""
        return self._journal.commands

    @property
    def send_error(self) -> SendError | None:
        """What sending a message fails with, or None. Set it to test how a program takes it."""
        return self._journal.send_error

    @send_error.setter
    def send_error(self, error: SendError | None) -> None:
        self._journal.send_error = error

    def send_event(
        self, event_type: str, /, *, hostname: str = "in-process", **fields: Any
    ) -> None:
        """Send an event as a worker would: ``send_event("task-failed", uuid=call.id)``.

        The worker here sends none by itself.

        :param event_type: such as ``"worker-heartbeat"``, or one of your own.
        :param hostname: the name of the worker that sends it.
        :param fields: what the event says.
        """
        session = self._sessions.running()
        message = event_message(self._sessions.codec, event_type, hostname, fields)
        session.send(message, Completion())

    def _plug(self) -> Plugs:
        stores = backend_name(self.app) != "rpc"  # which can do less than all other backends can
        broker = MemoryBroker(
            self.app, self._journal, self._results, self._replies, inline=self._inline
        )
        return Plugs(self.app, broker, MemoryResultBackend(self.app, stores=stores))
