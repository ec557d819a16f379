"""The client for tests: it sends to a worker in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..asyncio_impl.client import Client
from ..core.completion import Completion
from ..core.delivery import Delivery
from ..core.outcomes import PendingResults
from ..core.protocols import EventListener, Receiver, ReplyListener, Transports
from ..errors import ResultUndecodable, SendError
from ..settings import Settings
from ..transports.memory.worker import InProcessWorker, SentTask, event_message
from ..wire.codec import Wire
from ..wire.control import Purge
from ..wire.events import EventCapture
from ..wire.message import OutgoingMessage, StoreWrite

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
    :param options: those of :class:`bridgetask.Client`.
    """

    _read_settings = staticmethod(Settings.in_memory)

    def __init__(
        self,
        app: Celery,
        *,
        results: Mapping[str, Any] | None = None,
        replies: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        #: What was sent, in order: by the program, and by tasks, as the next one of a chain is.
        self.sent: list[SentTask] = []
        #: Commands that were sent to workers, such as ``revoke``, by name.
        self.commands: list[str] = []
        #: What sending a message fails with, or None. Set it to test how a program takes it.
        self.send_error: SendError | None = None
        self._results = dict(results or {})
        self._replies = dict(replies or {})
        self._connect = self._connect_in_memory

    def send_event(
        self, event_type: str, /, *, hostname: str = "in-process", **fields: Any
    ) -> None:
        """Send an event as a worker would: ``send_event("task-failed", uuid=call.id)``.

        The worker here sends none by itself.

        :param event_type: such as ``"worker-heartbeat"``, or one of your own.
        :param hostname: the name of the worker that sends it.
        :param fields: what the event says.
        """
        session = self._running_session()
        message = event_message(self._wire, event_type, hostname, fields)
        session._sender.send(message, Completion(), session.loop.time())

    def _connect_in_memory(
        self,
        wire: Wire,
        pending: PendingResults,
        replies: ReplyListener,
        loop: asyncio.AbstractEventLoop,
    ) -> Transports:
        worker = InProcessWorker(wire, self._results, self._replies)
        memory = _Memory(self, wire, worker, pending, replies, loop)
        store = memory if wire.settings.results.stored else None
        return Transports(sender=memory, results=memory, control=memory, store=store)


class _Memory:
    """All transports in one: what is sent is run in the next turn of the loop."""

    #: How many answer to commands.
    workers: int | None = 1

    def __init__(
        self,
        client: InMemoryClient,
        wire: Wire,
        worker: InProcessWorker,
        pending: PendingResults,
        replies: ReplyListener,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._client = client
        self._decoder = wire.decoder
        self._worker = worker
        self._backend = worker.backend
        self._pending = pending
        self._loop = loop
        self._queued = 0
        self._aborted = False
        self._replies = replies
        self._captures: list[_MemoryCapture] = []

    @property
    def queued(self) -> int:
        return self._queued

    def send(
        self,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        receiver: Receiver | None = None,
    ) -> None:
        """Take a message; see :class:`Sender`."""
        self._queued += 1
        self._loop.call_soon(self._deliver, message, delivery)

    def _deliver(self, message: OutgoingMessage, delivery: Completion) -> None:
        if self._client.send_error is not None:
            self._queued -= 1
            delivery.complete(self._client.send_error)
            return
        delivery.complete()
        self._take(message)

    def _take(self, message: OutgoingMessage) -> None:
        self._queued -= 1
        if self._aborted:
            return
        try:
            task = self._worker.read(message)
        except Exception as error:  # a worker would drop it
            self._worker.fail(message.task_id or message.properties["correlation_id"], error)
        else:
            if task is not None:
                self._run(message, task)
            else:
                self._obey_or_capture(message)
        for report in self._worker.reports():
            self._report(report.task_id, report.payload)

    def _run(self, message: OutgoingMessage, task: SentTask) -> None:
        """Run a task, and what it sends in later turns, so that others get theirs."""
        self._client.sent.append(task)
        for sent in self._worker.run(message, task.id):
            Delivery(task.name, sent.on_published).complete()
            self._queued += 1
            self._loop.call_soon(self._take, sent)

    def _obey_or_capture(self, message: OutgoingMessage) -> None:
        """Take a command or an event."""
        obeyed = self._worker.obey(message)
        if obeyed is None:
            for capture in self._captures:
                capture.take(message)
            return
        name, replies = obeyed
        self._client.commands.append(name)
        for ticket, reply in replies:
            self._replies.deliver(ticket, reply)

    def _report(self, task_id: str, payload: bytes) -> None:
        try:
            self._pending.deliver(self._decoder.decode_stored(payload, task_id))
        except ResultUndecodable as error:
            self._pending.deliver_undecodable(error)

    @property
    def ready(self) -> bool:
        """Always: results are delivered as they come about."""
        return True

    async def connect(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def drain(self) -> None:
        while self._queued:
            turn = Completion()
            self._loop.call_soon(turn.complete)  # after all that waits by now, which may send more
            await turn.wait()

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: results are delivered as they come about."""

    async def prepare(self) -> None:
        """Do nothing, either."""

    async def watch(self, task_id: str) -> None:
        await self.fetch([task_id])

    async def fetch(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            payload = self._backend.payload(task_id)
            if payload is not None:
                self._report(task_id, payload)

    async def exists(self, task_id: str) -> bool:
        return self._backend.payload(task_id) is not None

    async def forget(self, task_id: str) -> None:
        self._backend.forget(task_id)

    async def read(self, key: bytes) -> bytes | None:
        return self._backend.get(key)

    async def write(self, writes: Sequence[StoreWrite]) -> None:
        """Do nothing: the backend has kept it already."""

    def subscribe(self, capture: EventCapture, listener: EventListener) -> _MemoryCapture:
        return _MemoryCapture(capture, listener, self._captures)

    async def purge(self, purge: Purge) -> int:
        """Empty a queue: nothing ever waits in one."""
        return 0

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def abort(self) -> None:
        """Run no more tasks."""
        self._aborted = True


class _MemoryCapture:
    """A capture of the events that are sent in this process."""

    def __init__(
        self, capture: EventCapture, listener: EventListener, captures: list[_MemoryCapture]
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
