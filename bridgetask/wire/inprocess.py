"""A worker in this process, for tests: it takes messages and gives what a worker would send back.

It runs tasks by Celery's own ``Task.apply``, and sends everything through the app's serialisers, so
that arguments, values and exceptions arrive as they would over a broker.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery.exceptions import NotRegistered
from kombu.pidbox import Node
from kombu.serialization import dumps

from .backend import StoreWrite
from .message import OutgoingMessage, Properties
from .results import FAILURE, STARTED, SUCCESS, TaskUpdate, load
from .wire import Wire

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["InProcessWorker", "SentTask", "event_message"]

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
    wire: Wire, event_type: str, hostname: str, fields: dict[str, Any]
) -> OutgoingMessage:
    """Return the message of an event, as Celery's dispatcher sends it."""
    dispatcher = wire.app.events.Dispatcher(None, hostname=hostname, enabled=False)
    [message] = wire.recorder.record(
        lambda producer: dispatcher.publish(event_type, fields, producer)
    )
    return message


class InProcessWorker:
    """Reads messages, and runs tasks where they are.

    :param results: task names -> what to give instead of running the task: a value, an exception
        to raise, or a callable to run in its place.
    :param replies: command names -> what to reply: a value, or a callable that gets the command's
        arguments.
    """

    def __init__(self, wire: Wire, results: Mapping[str, Any], replies: Mapping[str, Any]) -> None:
        self._app: Celery = wire.app
        self._decoder = wire.decoder
        self._backend = wire.recorder.backend
        self._results = results
        #: What Celery's backend would have stored, by key.
        self._stored: dict[bytes, Any] = {}
        #: The values of a chord's parts so far, by the group's id and their place in it.
        self._parts: dict[str, dict[int, Any]] = {}
        self._mailbox = wire.mailbox
        self._node: Any = wire.mailbox.node(
            _Node, _HOSTNAME, _Handlers({"registered": self._registered, **replies})
        )

    def store(self, write: StoreWrite) -> None:
        """Keep what the backend would have stored, such as the size of a chord."""
        for verb, *arguments in write.commands:
            if verb == "SET":
                key, value = arguments[:2]
                self._stored[key] = value
            elif verb == "SETEX":  # up to Celery 5.5
                key, _, value = arguments
                self._stored[key] = value

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

    def run(self, task: SentTask) -> Iterator[TaskUpdate]:
        """Run a task, then those linked to it and the rest of its chain; yield what is reported."""
        yield self._report(task.id, STARTED, {"pid": 0, "hostname": _HOSTNAME})
        try:
            value = self._call(task)
        except Exception as error:
            yield self._report(task.id, FAILURE, error, traceback.format_exc())
            for step in task.embed.get("chain") or ():
                members = step["kwargs"]["tasks"] if step["subtask_type"] == "group" else [step]
                for member in members:
                    yield self._report(member["options"]["task_id"], FAILURE, error)
            return
        yield self._report(task.id, SUCCESS, value)
        chain = list(task.embed.get("chain") or ())
        if chain:
            step = chain.pop()
            members = step["kwargs"]["tasks"] if step["subtask_type"] == "group" else [step]
            for member in members:
                yield from self.run(self._next(task, member, value, {"chain": chain}))
        for link in task.embed.get("callbacks") or ():
            yield from self.run(self._next(task, link, value, {}))
        if task.embed.get("chord"):
            yield from self._run_body(task, value)

    def _run_body(self, part: SentTask, value: Any) -> Iterator[TaskUpdate]:
        """Run the body of a chord if this was the last one of its parts."""
        group_id = part.headers["group"]
        parts = self._parts.setdefault(group_id, {})
        parts[part.headers.get("group_index") or len(parts)] = value
        size = self._stored.get(self._backend.get_key_for_group(group_id, ".s"))
        if size is None or len(parts) < int(size):
            return
        values = [parts[index] for index in sorted(self._parts.pop(group_id))]
        yield from self.run(self._next(part, part.embed["chord"], values, {}))

    def _registered(self, **_: Any) -> list[str]:
        return sorted(name for name in self._app.tasks if not name.startswith("celery."))

    def _call(self, task: SentTask) -> Any:
        name = task.name
        if name in self._results:
            result = self._results[name]
            if isinstance(result, BaseException):
                raise result
            return result(*task.args, **task.kwargs) if callable(result) else result
        if name not in self._app.tasks:
            raise NotRegistered(name)
        registered: Any = self._app.tasks[name]
        return registered.apply(task.args, task.kwargs, task_id=task.id, throw=True).result

    def _next(
        self, before: SentTask, signature: Mapping[str, Any], value: Any, embed: dict[str, Any]
    ) -> SentTask:
        """Return the task of a signature that gets the value of the task before it."""
        if signature["subtask_type"] == "chain":
            signature, *others = signature["kwargs"]["tasks"]
            embed = {**embed, "chain": others[::-1]}
        options = signature["options"]
        args = list(signature["args"])
        if not signature.get("immutable"):
            args.insert(0, value)
        return SentTask(
            options.get("task_id") or f"{before.id}-link",
            signature["task"],
            args,
            dict(signature["kwargs"]),
            before.exchange,
            before.routing_key,
            {"group": options.get("group_id"), "group_index": options.get("group_index")},
            {**embed, "callbacks": options.get("link"), "chord": options.get("chord")},
        )

    def _report(
        self, task_id: str, state: str, result: Any, remote_traceback: str | None = None
    ) -> TaskUpdate:
        """Encode an update as a worker's backend does, and decode it as the client does."""
        meta = {
            "task_id": task_id,
            "status": state,
            "result": self._decoder.encode_result(result, state),
            "traceback": remote_traceback,
            "children": [],
        }
        content_type, encoding, body = dumps(meta, serializer=self._app.conf.result_serializer)
        raw = body.encode() if isinstance(body, str) else body
        properties = Properties(content_type, encoding, correlation_id=task_id)
        return self._decoder.decode(raw, properties)


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
