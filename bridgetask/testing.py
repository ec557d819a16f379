"""Test programs that use bridgetask, without a broker and without a worker.

.. code-block:: python

    from bridgetask.testing import InMemoryClient

    async def test_checkout():
        async with InMemoryClient(app, results={"shop.charge": "ok"}) as client:
            assert await checkout(client) == "done"
            assert client.sent[0].name == "shop.charge"

Tasks that the app knows are run, on the spot and on the event loop; ``results`` stands in for
others. For Twisted, give it to ``TwistedCelery(InMemoryClient(app))``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .asyncio_impl.client import Client
from .asyncio_impl.completion import Completion
from .asyncio_impl.pending import PendingResults
from .asyncio_impl.transports.base import ResultSource, Transports
from .errors import SendError
from .wire.inprocess import InProcessWorker, SentTask
from .wire.message import OutgoingMessage
from .wire.wire import Wire

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["InMemoryClient", "SentTask"]


class InMemoryClient(Client):
    """A :class:`bridgetask.Client` that sends to a worker in this process.

    :param app: the Celery app. Its broker and backend settings are not used to connect.
    :param results: task names -> what to give instead of running the task: a value, an exception
        to raise, or a callable to run in its place.
    :param options: those of :class:`bridgetask.Client`.
    """

    def __init__(
        self, app: Celery, *, results: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(app, **options)
        #: What was sent, in order.
        self.sent: list[SentTask] = []
        #: Commands that were sent to workers, such as ``revoke``, by name.
        self.commands: list[str] = []
        #: What sending a message fails with, or None. Set it to test how a program takes it.
        self.send_error: SendError | None = None
        self._results = dict(results or {})
        self._connect = self._connect_in_memory

    def _connect_in_memory(
        self, wire: Wire, pending: PendingResults, loop: asyncio.AbstractEventLoop
    ) -> Transports:
        memory = _Memory(self, InProcessWorker(wire, self._results), wire, pending, loop)
        return Transports(sender=memory, results=memory, replies=memory)


class _Memory:
    """All three transports in one: what is sent is run in the next turn of the loop."""

    def __init__(
        self,
        client: InMemoryClient,
        worker: InProcessWorker,
        wire: Wire,
        pending: PendingResults,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._client = client
        self._worker = worker
        self._wire = wire
        self._pending = pending
        self._loop = loop
        self._queued = 0
        self._on_reply: Callable[[str, object], None] | None = None

    @property
    def queued(self) -> int:
        return self._queued

    def send(
        self,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        results: ResultSource | None = None,
    ) -> None:
        """Take a message; see :class:`Sender`."""
        self._queued += 1
        self._loop.call_soon(self._deliver, message, delivery)

    def _deliver(self, message: OutgoingMessage, delivery: Completion) -> None:
        self._queued -= 1
        if self._client.send_error is not None:
            delivery.complete(self._client.send_error)
            return
        delivery.complete()
        task = self._worker.read(message)
        if task is not None:
            self._client.sent.append(task)
            for update in self._worker.run(task):
                self._pending.deliver(update)
        elif message.mandatory is False:
            self._obey(message)

    def _obey(self, message: OutgoingMessage) -> None:
        command = self._wire.mailbox.read_command(message)
        if command is None:
            return
        name, ticket = command
        self._client.commands.append(name)
        if ticket is not None and self._on_reply is not None:
            self._on_reply(ticket, {"in-process": {"ok": "pong"}})

    @property
    def ready(self) -> bool:
        """Always: results are delivered as they come about."""
        return True

    async def connect(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def drain(self) -> None:
        drained = Completion()
        self._loop.call_soon(drained.complete)  # in turn, after all that was taken before
        await drained.wait()

    async def start(self) -> None:
        """Do nothing: results are delivered as they come about."""

    async def listen(self, on_reply: Callable[[str, object], None]) -> None:
        self._on_reply = on_reply

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def abort(self) -> None:
        """Do nothing: there is nothing to drop."""
