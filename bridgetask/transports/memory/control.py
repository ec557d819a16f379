"""Commands to the worker in this process, and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kombu.pidbox import Node

from ...core.plugs import SessionContext
from ...core.receiving import EventListener
from ...wire.codec import Codec
from ...wire.control import Purge
from ...wire.events import EventCapture
from ...wire.message import OutgoingMessage
from .journal import Journal
from .worker import HOSTNAME

__all__ = ["MemoryCapture", "MemoryControl", "event_message"]


def event_message(
    codec: Codec, event_type: str, hostname: str, fields: dict[str, Any]
) -> OutgoingMessage:
    """Return the message of an event, as Celery's dispatcher sends it."""
    dispatcher = codec.app.events.Dispatcher(None, hostname=hostname, enabled=False)
    [message] = codec.recorder.record(
        lambda producer: dispatcher.publish(event_type, fields, producer)
    )
    return message


class MemoryControl:
    """Obeys commands at once, and hands events to those who capture them.

    :param replies: command names -> what to reply: a value, or a callable that gets the command's
        arguments.
    """

    #: How many answer to commands.
    workers: int | None = 1
    ready = True

    def __init__(
        self, journal: Journal, replies: Mapping[str, Any], context: SessionContext
    ) -> None:
        self._app = context.codec.app
        self._mailbox = context.codec.mailbox
        self._node: Any = self._mailbox.node(
            _Node, HOSTNAME, _Handlers({"registered": self._registered, **replies})
        )
        self._journal = journal
        self._replies = context.replies
        self._captures: list[MemoryCapture] = []

    def take(self, message: OutgoingMessage) -> None:
        """Take a command or an event."""
        command = self._mailbox.read_command(message)
        if command is None:
            for capture in self._captures:
                capture.take(message)
            return
        self._node.replies.clear()
        self._node.handle_message(command)
        self._journal.commands.append(command["method"])
        for ticket, reply in list(self._node.replies):
            self._replies.deliver(ticket, reply)

    async def prepare(self) -> None:
        """Do nothing: no reply can be missed."""

    def subscribe(self, capture: EventCapture, listener: EventListener) -> MemoryCapture:
        return MemoryCapture(capture, listener, self._captures)

    async def purge(self, purge: Purge) -> int:
        """Empty a queue: nothing ever waits in one."""
        return 0

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def abort(self) -> None:
        """Do nothing, either."""

    def _registered(self, **_: Any) -> list[str]:
        return sorted(name for name in self._app.tasks if not name.startswith("celery."))


class MemoryCapture:
    """A capture of the events that are sent in this process."""

    def __init__(
        self, capture: EventCapture, listener: EventListener, captures: list[MemoryCapture]
    ) -> None:
        self._capture = capture
        self._listener = listener
        self._captures = captures

    def take(self, message: OutgoingMessage) -> None:
        if self._capture.takes(message):
            for event in self._capture.read(message.body, message.received):
                self._listener.push(event)

    async def start(self) -> None:
        if self not in self._captures:
            self._captures.append(self)
            self._listener.consuming()

    async def close(self) -> None:
        if self in self._captures:
            self._captures.remove(self)


class _Node(Node):
    """kombu's end of the mailbox in a worker, whose replies are kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.replies: list[tuple[str, Any]] = []

    def reply(self, data: Any, exchange: Any, routing_key: Any, ticket: Any, **_: Any) -> None:
        self.replies.append((ticket, data))


class _Handlers:
    """What obeys commands, by their names: any name will do."""

    _QUIET = ("active", "scheduled", "reserved", "revoked", "active_queues")

    def __init__(self, replies: Mapping[str, Any]) -> None:
        self._replies = {"ping": {"ok": "pong"}, **{name: [] for name in self._QUIET}, **replies}

    def __getitem__(self, name: str) -> Any:
        def handle(_: None, **arguments: Any) -> Any:
            reply = self._replies.get(name, {"ok": f"{name}: nothing was done"})
            return reply(**arguments) if callable(reply) else reply

        return handle
