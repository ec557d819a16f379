"""A worker in this process, for tests: it takes messages and does what a worker would do.

Celery's own tracer runs the tasks, and so sees to retries, links, chains, chords and reports. All
goes through the app's serialisers: arguments, values and exceptions arrive as over a broker.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from billiard.einfo import ExceptionInfo
from celery import Task
from celery.app.trace import build_tracer
from celery.exceptions import NotRegistered, WorkerLostError
from celery.worker.request import Request
from celery.worker.strategy import proto1_to_proto2
from kombu.message import Message

from ...wire.codec import Codec
from ...wire.control import Command, Purge
from ...wire.message import OutgoingMessage
from ...wire.results import load
from .backend import MemoryBackend, TaskRun
from .redirection import redirected

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["HOSTNAME", "InProcessWorker", "Ran", "SentTask"]

logger: logging.Logger = logging.getLogger(__name__)

#: The name by which the worker answers to commands, and which tasks see in their requests.
HOSTNAME = "in-process"


@dataclass(frozen=True, slots=True)
class SentTask:
    """A task as a worker would have got it."""

    id: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    #: The exchange and the routing key that the task was sent to.
    exchange: str
    routing_key: str
    headers: Mapping[str, Any] = field(repr=False)
    #: Linked tasks and the rest of a chain, as signatures in the form of dicts.
    embed: Mapping[str, Any] = field(repr=False)


class Ran(NamedTuple):
    """What came of a run."""

    #: The messages that the task sent, in order.
    sent: list[OutgoingMessage]
    #: How it ended, and what followed from that: ids of tasks, and what is stored of them. Nobody
    #: was told of that yet.
    ends: list[tuple[str, bytes]]


class InProcessWorker:
    """Runs the tasks in messages in the calling thread, at once: countdowns are not waited for.

    :param results: task names -> what to give instead of running the task: a value, an exception
        to raise, or a callable to run in its place.
    """

    def __init__(self, codec: Codec, backend: MemoryBackend, results: Mapping[str, Any]) -> None:
        self._app: Celery = codec.app
        self._recorder = codec.recorder
        self._results = results
        #: Where results are, and groups whose members a chord's body waits for.
        self.backend: MemoryBackend = backend
        #: Held while something is recorded: a task may send from several threads at once.
        self._recording = threading.RLock()
        parts = codec.recorder.sending_parts
        #: What tasks get of the app while they run.
        self._parts = {
            **parts,
            "amqp": _OneAtATime(parts["amqp"], self._recording),
            "backend": self.backend,
            "control": codec.mailbox.control(self._command),
        }

    def read(self, message: OutgoingMessage) -> SentTask | None:
        """Return the task in a message; None where it is a command or an event."""
        properties = message.properties
        headers = properties["headers"]
        accept = {properties["content_type"]}
        body = load(message.body, message.received, accept)
        if "task" in headers:  # task protocol 2
            args, kwargs, embed = body
            task_id, name = headers["id"], headers["task"]
        elif isinstance(body, dict) and "task" in body:  # task protocol 1
            args, kwargs, embed = body["args"], body["kwargs"], body
            task_id, name = body["id"], body["task"]
        else:
            return None
        return SentTask(
            task_id,
            name,
            list(args),
            dict(kwargs),
            message.exchange,
            message.routing_key,
            headers,
            embed,
        )

    def run(self, message: OutgoingMessage, task_id: str) -> Ran:
        """Run the task in a message.

        What it reports is announced as it comes, but for how it ended: a failure if anything went
        wrong.
        """
        with self.backend.run(task_id) as run:
            sent = self._recorder.record(lambda _: self._run(message, run))
        return Ran(sent, run.held)

    def fail(
        self,
        task_id: str,
        error: Any,
        request: Request | None = None,
        run: TaskRun | None = None,
    ) -> None:
        """Report a failure of a task that has not reported how it ended."""
        if run is not None and run.has_ended:
            return
        remote_traceback = "".join(traceback.format_exception(error))
        context = None if request is None else request._context
        try:
            self.backend.mark_as_failure(task_id, error, remote_traceback, request=context)
        except Exception as worse:
            if request is None:
                raise
            logger.exception(
                "The failure of %s[%s] can't be reported in full", request.name, task_id
            )
            self.fail(task_id, worse, run=run)

    def _run(self, message: OutgoingMessage, run: TaskRun) -> None:
        request: Request | None = None
        with redirected(self._app, self._parts):
            try:
                request = self._request(message)
                if not request.revoked():
                    self._trace(request, run)
            except Exception as error:  # nobody else would tell those who wait
                self.fail(run.task_id, error, request, run)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit would end a worker's process
                lost = WorkerLostError(f"Worker exited prematurely: {error!r}.")
                self.fail(run.task_id, lost, request, run)

    def _request(self, message: OutgoingMessage) -> Request:
        """Read a message as a worker does."""
        properties, body = {**message.properties}, cast(Any, message.body)
        received: Any = Message(
            body=body,
            content_type=properties["content_type"],
            content_encoding=properties["content_encoding"],
            delivery_info={"exchange": message.exchange, "routing_key": message.routing_key},
            headers=properties.pop("headers"),
            properties=properties,
            accept={properties["content_type"]},
        )
        body, headers = received.payload, received.headers
        if "task" not in headers:
            body, headers, *_ = proto1_to_proto2(received, body)
        request = Request(
            received,
            app=self._app,
            hostname=HOSTNAME,
            task=self._task(headers["task"]),
            headers=headers,
            body=body,
            decoded=True,
        )
        request.request_dict.update(body[2], is_eager=False)
        return request

    def _trace(self, request: Request, run: TaskRun) -> None:
        """Follow a pool, and ``trace_task_ret`` in it."""
        task = request.task
        if not task.acks_late:
            request.acknowledge()
        # Made anew: one that is kept with the task would not notice that the task was changed.
        trace = build_tracer(task.name, task, app=self._app, hostname=HOSTNAME)
        value, failed, runtime, shown = trace(
            request.id, request.args, request.kwargs, request.request_dict
        )
        if failed:
            request.on_success((1, value, runtime))
        elif isinstance(value, ExceptionInfo):  # Celery 5.5's tracer reports none of its own
            self.fail(request.id, value.exception, request, run)
        else:
            request.on_success((0, shown, runtime))

    def _task(self, name: str) -> Task[Any, Any]:
        if name in self._results:
            return self._stand_in(name, self._results[name])
        if name in self._app.tasks:
            return self._app.tasks[name]
        return self._stand_in(name, NotRegistered(name))

    def _stand_in(self, name: str, result: Any) -> Task[Any, Any]:
        """Return a task that is not registered, and gives what it is told to."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result(*args, **kwargs) if callable(result) else result

        stand_in: Any = type("StandIn", (Task,), {"name": name, "run": staticmethod(run)})
        stand_in.bind(self._app)
        task: Task[Any, Any] = stand_in()
        return task

    def _command(self, request: Command | Purge) -> Any:
        """Take a command that a task sends. It gets no replies: those come in a later turn."""
        if isinstance(request, Purge):
            return 0
        with self._recording:
            self._recorder.tape.add(request.message)
        return None if request.ticket is None else []


class _OneAtATime:
    """``app.amqp``, by which one thread at a time sends a task."""

    def __init__(self, amqp: Any, lock: threading.RLock) -> None:
        self._amqp = amqp
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._amqp, name)

    def send_task_message(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            return self._amqp.send_task_message(*args, **options)
