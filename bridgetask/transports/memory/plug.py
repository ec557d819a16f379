"""The worker in this process as a broker plug and as a backend plug."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kombu import Connection

from ...core.plugs import BackendCapabilities, BrokerCapabilities, BrokerConnections, SessionContext
from ...settings import broker_schemes
from ...wire.backend import RecordingBackend
from ...wire.message import StoreWrite
from ...wire.producer import RecordingChannel
from .backend import MemoryBackend
from .control import MemoryControl
from .journal import Journal
from .publisher import MemoryPublisher
from .results import MemoryResults
from .runners import InlineRunner, Runner, ThreadRunner
from .unfinished import Unfinished
from .worker import InProcessWorker

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["MemoryBroker", "MemoryResultBackend"]


class MemoryBroker:
    """Hands messages to a worker in this process.

    :param results: see :class:`InProcessWorker`.
    :param replies: see :class:`MemoryControl`.
    :param inline: whether tasks are run on the event loop, rather than in a thread.
    """

    capabilities: BrokerCapabilities = BrokerCapabilities(
        confirms=True,
        returns_unroutable=False,
        counts_workers=True,
        fanout=True,
        carries_results=True,
    )

    def __init__(
        self,
        app: Celery,
        journal: Journal,
        results: Mapping[str, Any],
        replies: Mapping[str, Any],
        *,
        inline: bool,
    ) -> None:
        self._app = app
        self._journal = journal
        self._results = results
        self._replies = replies
        self._inline = inline

    def recording_channel(self) -> RecordingChannel:
        return RecordingChannel()

    def unconnected(self) -> Connection:
        """Return the app's where that is RabbitMQ's, which Celery sends some tasks another way to.

        For other brokers kombu would import their libraries.
        """
        schemes = broker_schemes(self._app.conf, self._app.conf.broker_write_url)
        if all("amqp" in scheme for scheme in schemes):
            return self._app.connection_for_write()
        return Connection("memory://")

    def connect(self, context: SessionContext) -> MemoryConnections:
        recording = context.codec.recorder.backend
        stores = isinstance(recording, MemoryBackend)
        backend = recording if stores else MemoryBackend(context.codec.app, chords=False)
        worker = InProcessWorker(context.codec, backend, self._results)
        runner = InlineRunner(context.loop) if self._inline else ThreadRunner()
        control = MemoryControl(self._journal, self._replies, context)
        return MemoryConnections(worker, runner, control, self._journal, context)


class MemoryResultBackend:
    """Keeps results in this process.

    :param stores: whether they can be asked for, as with all backends but ``rpc://``.
    """

    unavailable: str | None = None
    refuses_calls = False

    def __init__(self, app: Celery, *, stores: bool) -> None:
        self.capabilities: BackendCapabilities = BackendCapabilities(
            pushes=True, stores=stores, uses_reply_to=not stores
        )
        self._app = app

    def recording_backend(self, view: Any, record: Callable[[StoreWrite], None]) -> Any:
        return MemoryBackend(self._app) if self.capabilities.stores else RecordingBackend()

    def connect(
        self, context: SessionContext, broker: BrokerConnections
    ) -> tuple[MemoryResults, MemoryResults | None]:
        results = broker.results()
        assert isinstance(results, MemoryResults)
        return results, results if self.capabilities.stores else None


class MemoryConnections:
    """What connects a session to the worker in this process."""

    def __init__(
        self,
        worker: InProcessWorker,
        runner: Runner,
        control: MemoryControl,
        journal: Journal,
        context: SessionContext,
    ) -> None:
        unfinished = Unfinished()
        self._results = MemoryResults(worker.backend, unfinished, context)
        self.control: MemoryControl = control
        self.publisher: MemoryPublisher = MemoryPublisher(
            worker, runner, unfinished, journal, control, context.loop
        )

    def results(self) -> MemoryResults:
        return self._results
