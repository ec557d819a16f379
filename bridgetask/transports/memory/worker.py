"""A worker in this process, for tests: it takes messages and does what a worker would do.

Celery's own tracer runs the tasks, and so sees to retries, links, chains, chords and reports. All
goes through the app's serialisers: arguments, values and exceptions arrive as over a broker.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from billiard.einfo import ExceptionInfo
from celery import Task
from celery.app.trace import build_tracer
from celery.exceptions import NotRegistered, WorkerLostError
from celery.worker.request import Request
from celery.worker.strategy import proto1_to_proto2
from kombu.message import Message
from kombu.pidbox import Node

from ...wire.codec import Codec
from ...wire.control import Command, Purge
from ...wire.message import OutgoingMessage
from ...wire.results import READY_STATES, load
from .backend import MemoryBackend, Report
from .redirection import redirected

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["InProcessWorker", "SentTask", "event_message"]

logger: logging.Logger = logging.getLogger(__name__)

#: The name by which the worker answers to commands.
_HOSTNAME = "in-process"


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


def event_message(
    codec: Codec, event_type: str, hostname: str, fields: dict[str, Any]
) -> OutgoingMessage:
    """Return the message of an event, as Celery's dispatcher sends it."""
    dispatcher = codec.app.events.Dispatcher(None, hostname=hostname, enabled=False)
    [message] = codec.recorder.record(
        lambda producer: dispatcher.publish(event_type, fields, producer)
    )
    return message


class InProcessWorker:
    """Runs the tasks in messages where it is, at once: countdowns are not waited for.

    :param results: task names -> what to give instead of running the task: a value, an exception
        to raise, or a callable to run in its place.
    :param replies: command names -> what to reply: a value, or a callable that gets the command's
        arguments.
    """

    def __init__(
        self,
        codec: Codec,
        backend: MemoryBackend,
        results: Mapping[str, Any],
        replies: Mapping[str, Any],
    ) -> None:
        self._app: Celery = codec.app
        self._recorder = codec.recorder
        self._results = results
        #: Where results are, and groups whose members a chord's body waits for.
        self.backend: MemoryBackend = backend
        self._mailbox = codec.mailbox
        self._node: Any = codec.mailbox.node(
            _Node, _HOSTNAME, _Handlers({"registered": self._registered, **replies})
        )
        #: What tasks get of the app while they run.
        self._parts = {
            "backend": self.backend,
            "control": codec.mailbox.control(self._command),
            **codec.recorder.sending_parts,
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

    def obey(self, message: OutgoingMessage) -> tuple[str, list[tuple[str, Any]]] | None:
        """Obey a command; return its name, and the replies with their tickets, if it is one."""
        command = self._mailbox.read_command(message)
        if command is None:
            return None
        self._node.replies.clear()
        self._node.handle_message(command)
        return command["method"], list(self._node.replies)

    def run(self, message: OutgoingMessage, task_id: str) -> list[OutgoingMessage]:
        """Run the task in a message; return the messages that this sent, in order.

        What it reports is in the backend by then, a failure if anything went wrong.
        """
        return self._recorder.record(lambda _: self._run(message, task_id))

    def fail(self, task_id: str, error: Any, request: Request | None = None) -> None:
        """Report a failure of a task that has not reported how it ended."""
        reports = self.backend.reports
        if any(each.task_id == task_id and each.state in READY_STATES for each in reports):
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
            self.fail(task_id, worse)

    def reports(self) -> Iterator[Report]:
        """Take what has been reported."""
        while self.backend.reports:
            yield self.backend.reports.popleft()

    def _run(self, message: OutgoingMessage, task_id: str) -> None:
        request: Request | None = None
        with redirected(self._app, self._parts):
            try:
                request = self._request(message)
                if not request.revoked():
                    self._trace(request)
            except Exception as error:  # nobody else would tell those who wait
                self.fail(task_id, error, request)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit would end a worker's process
                lost = WorkerLostError(f"Worker exited prematurely: {error!r}.")
                self.fail(task_id, lost, request)

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
            hostname=_HOSTNAME,
            task=self._task(headers["task"]),
            headers=headers,
            body=body,
            decoded=True,
        )
        request.request_dict.update(body[2], is_eager=False)
        return request

    def _trace(self, request: Request) -> None:
        """Follow a pool, and ``trace_task_ret`` in it."""
        task = request.task
        if not task.acks_late:
            request.acknowledge()
        # Made anew: one that is kept with the task would not notice that the task was changed.
        trace = build_tracer(task.name, task, app=self._app, hostname=_HOSTNAME)
        value, failed, runtime, shown = trace(
            request.id, request.args, request.kwargs, request.request_dict
        )
        if failed:
            request.on_success((1, value, runtime))
        elif isinstance(value, ExceptionInfo):  # Celery 5.5's tracer reports none of its own
            self.fail(request.id, value.exception, request)
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

    def _registered(self, **_: Any) -> list[str]:
        return sorted(name for name in self._app.tasks if not name.startswith("celery."))

    def _command(self, request: Command | Purge) -> Any:
        """Take a command that a task sends. It gets no replies: those come in a later turn."""
        if isinstance(request, Purge):
            return 0
        self._recorder.tape.add(request.message)
        return None if request.ticket is None else []


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
