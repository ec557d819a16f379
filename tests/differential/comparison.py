"""The same call through Celery's own client and through bridgetask, compared in RabbitMQ."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.canvas import Signature
from kombu import Connection, Exchange, Queue
from kombu.compression import decompress
from kombu.serialization import loads
from kombu.utils.functional import maybe_list

from bridgetask import Client, InvalidOption, NotRoutable

from ..blocking import blocking_refused
from ..fix_rabbitmq import close_celery
from .raw import RawMessage, RawQueues

__all__ = [
    "ADDRESS",
    "DEFAULT_QUEUE",
    "NOW",
    "TALLY",
    "TIMES",
    "Differential",
    "FrozenCelery",
    "Messages",
    "Options",
]

#: The default queue of the apps compared.
DEFAULT_QUEUE = "differential"
#: When all calls are made.
NOW = datetime(2030, 3, 1, 11, 59, 30, 250_000, tzinfo=UTC)
#: The address that both are told to have, in what they sent. Both have it this long.
ADDRESS = b"x" * len("bridgetask.results.") + b"x" * 36
#: What an event says of its moment.
_MOMENT = re.compile(rb"(clock|timestamp)(\W+)[0-9.]+")
#: How many times a call is made through bridgetask: the last by a template, where one is made.
TIMES = 3
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class FrozenCelery(Celery):
    """An app whose clock stands still, so that both calls are made at the same time.

    Its results go to an address as long as bridgetask's, so that it can be exchanged in bodies of
    every kind.
    """

    def now(self) -> datetime:
        return NOW.astimezone(self.timezone)

    @property
    def thread_oid(self) -> str:
        return "celery".ljust(len(ADDRESS), ".")


@dataclass
class Tally:
    """What was compared in this run."""

    #: Calls by what they were: no call counts twice.
    combinations: set[str] = field(default_factory=set)
    messages: int = 0
    #: Kinds of calls that were made by templates in the end.
    templates: int = 0
    #: Those that neither client took.
    refused: set[str] = field(default_factory=set)
    #: Those that no queue took, of which only bridgetask tells.
    unroutable: set[str] = field(default_factory=set)


TALLY = Tally()


class _CelerysOwn:
    """Celery's own client, with the methods of ours."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        return self._app.send_task(name, *args, **options)

    def delay(self, task: Any, *args: Any, **kwargs: Any) -> Any:
        return task.delay(*args, **kwargs)

    def apply_async(self, task: Any, *args: Any, **options: Any) -> Any:
        return task.apply_async(*args, **options)


Options = dict[str, Any]


def _described(call: Any) -> str:
    """Return a short text, the same for the same only."""
    return re.sub(r"(.)\1{99,}", lambda run: f"{run[1]} * {len(run[0])}", repr(call))


#: A call, given the client to make it through.
Call = Callable[[Any], Any]
#: What arrived, by queue.
Messages = dict[str, list[RawMessage]]
#: What arrived, and the error that the call raised.
Outcome = tuple[Messages, Exception | None]


class Differential:
    """Makes calls through both clients of one app, and compares what arrives in RabbitMQ.

    :param queues: the queues to look into.
    :param bindings: exchanges and routing keys that lead to the default queue, too.
    :param about: what sets this app apart from others, for the tally.
    """

    def __init__(
        self,
        broker_url: str,
        app: Celery,
        queues: Iterable[Queue | str],
        bindings: Iterable[tuple[str, str]] = (),
        about: str = "",
    ) -> None:
        self.app = app
        self._about = about
        self._theirs = _CelerysOwn(app)
        self._ours = Client(app)
        with ExitStack() as closing:
            closing.callback(close_celery, app)
            self._raw = RawQueues(broker_url)
            closing.callback(self._raw.close)
            with Connection(broker_url) as connection:
                channel = connection.default_channel
                for queue in queues:
                    name = queue if isinstance(queue, str) else queue.name
                    declared = Queue(name, Exchange(name), name) if name is queue else queue
                    declared(channel).declare()
                    self._watch(name, closing)
                for exchange, routing_key in bindings:
                    channel.queue_bind(DEFAULT_QUEUE, exchange, routing_key)
            closing.callback(self._raw.delete, app.thread_oid)
            self._runner = closing.enter_context(asyncio.Runner())
            closing.callback(lambda: self._runner.run(self._ours.close()))
            self._runner.run(self._ours.connect())
            self._closing = closing.pop_all()

    def _watch(self, queue: str, closing: ExitStack | None = None) -> None:
        self._raw.watch(queue)
        (closing or self._closing).callback(self._raw.delete, queue)

    def close(self) -> None:
        """Close both clients, and remove the queues."""
        TALLY.templates += len(self._ours._sessions.codec.recorder.templates.in_use)
        self._closing.close()

    def compare(self, case: str, call: Call, *, linked: bool = False) -> Messages:
        """Make a call through both clients; return what Celery's sent.

        :param case: what the call is, once in an app.
        :param linked: the call has linked tasks, or a chain that it is given by hand. With rpc://,
            and only then, bridgetask tells them where to send their results, which otherwise come
            to nobody.
        """
        (theirs, their_error), (ours, our_error) = self.make(call)
        linked = linked and self.app.conf.result_backend == "rpc://"
        key = f"{self._about} {case}"
        if their_error is not None:
            assert _refused_likewise(our_error, their_error), (case, our_error, their_error)
            assert ours == theirs == {}, case
            TALLY.refused.add(key)
            return {}
        if not theirs:
            assert isinstance(our_error, NotRoutable), (case, our_error)
            TALLY.unroutable.add(key)
            return {}
        assert our_error is None, (case, our_error)
        expected = _unlinked(theirs) if linked else theirs
        for time in range(TIMES):
            if time:
                ours, our_error = self._through_bridgetask(call)
                assert our_error is None, (case, our_error)
            if linked:
                ours = _unlinked(ours)
            assert ours.keys() == expected.keys(), case
            for queue in expected:
                assert ours[queue] == expected[queue], (
                    f"{case}: {_first_difference(ours, expected)}"
                )
        TALLY.combinations.add(key)
        TALLY.messages += sum(map(len, theirs.values()))
        return theirs

    def compare_task(self, task: Any, where: str = "", /, **options: Any) -> Messages:
        """Call a task by its name, a task itself or a signature, and :meth:`compare`."""
        by_name = isinstance(task, str)
        said = options | task.options if isinstance(task, Signature) else options

        def call(client: Any) -> Any:
            send = client.send_task if by_name else client.apply_async
            return send(task, task_id="the task's id", **options)

        called = dict(task) if isinstance(task, Signature) else task
        return self.compare(
            " ".join(
                (
                    "send_task" if by_name else "apply_async",
                    *(_described(each) for each in (called, options)),
                    where,
                )
            ),
            call,
            linked=any(said.get(name) for name in ("link", "link_error", "chain")),
        )

    def make(self, call: Call) -> tuple[Outcome, Outcome]:
        """Make a call through Celery's client and through bridgetask; return what each sent."""
        return self._through_celery(call), self._through_bridgetask(call)

    def declare(self, queue: str, *, celery_first: bool) -> None:
        """Have a queue declared by both clients, by a call each, and look into it from then on.

        RabbitMQ refuses to declare a queue, or an exchange, again unless it is the same.
        """
        ways = [self._through_celery, self._through_bridgetask]
        for through in ways if celery_first else reversed(ways):
            _, error = through(lambda client: client.send_task("plain", queue=queue))
            assert error is None
        self._watch(queue)
        assert len(self._raw.take()[queue]) == 2

    def _through_celery(self, call: Call) -> Outcome:
        error = None
        try:
            call(self._theirs)
        except Exception as reason:
            error = reason
        return self._taken(self.app.thread_oid), error

    def _through_bridgetask(self, call: Call) -> Outcome:
        async def through_bridgetask() -> Exception | None:
            with blocking_refused():
                try:
                    await call(self._ours).sent()
                except Exception as error:
                    return error
                await self._ours._sessions.current._outbox.drain()  # an event may follow
                return None

        error = self._runner.run(through_bridgetask())
        return self._taken(self._ours._sessions.codec.recorder.reply_to), error

    def _taken(self, address: str) -> Messages:
        """Return what arrived, with what must differ taken out: ids, and the reply address."""
        ids: dict[bytes, bytes] = {}

        def numbered(found: re.Match[bytes]) -> bytes:
            return ids.setdefault(found[0], b"%036d" % len(ids))

        def normalised(text: bytes) -> bytes:
            return _UUID.sub(numbered, text.replace(address.encode(), ADDRESS))

        taken = self._raw.take()
        return {
            queue: [_comparable(each.with_bytes(normalised)) for each in taken[queue]]
            for queue in sorted(taken)
        }


def _comparable(message: RawMessage) -> RawMessage:
    if message.routing_key == "task.sent":
        message = replace(message, body=_MOMENT.sub(rb"\g<1>\g<2>0", message.body))
    if os.environ.get("BRIDGETASK_AMQP") == "plain":
        # There aiormq gives each message an id, of 32 hex digits, that Celery does not.
        message_id = message.property("message_id")
        if message_id is not None and re.fullmatch(rb"[0-9a-f]{32}", message_id):
            return message.without_property("message_id")
    return message


def _first_difference(ours: Messages, theirs: Messages) -> str:
    """Show where two lists of messages part, which pytest would cut off."""
    one, other = repr(ours), repr(theirs)
    parts = (at for at, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1)
    at = max(0, next(parts, 0) - 40)
    return f"...{one[at : at + 160]}... against ...{other[at : at + 160]}..."


def _refused_likewise(ours: Exception | None, theirs: Exception) -> bool:
    """Tell whether ours is the error for what Celery refuses: its own, or one that says more."""
    return isinstance(ours, (type(theirs), InvalidOption))


def _unlinked(messages: Messages) -> Messages:
    """Return the messages with linked tasks not told where to send their results."""
    return {queue: [_unlinked_message(each) for each in messages[queue]] for queue in messages}


def _unlinked_message(message: RawMessage) -> RawMessage:
    body = message.body
    if compression := message.headers.get("compression"):
        body = decompress(body, compression.decode())
    content_type, encoding = (
        message.property(name).decode() for name in ("content_type", "content_encoding")
    )
    content = loads(body, content_type, encoding, {content_type})
    embedded = content if isinstance(content, dict) else content[2]
    for link in ("callbacks", "errbacks", "chain"):
        for signature in embedded.get(link) or ():
            _without_reply_to(signature)
    return replace(message, body=repr(_typed(content)).encode())


def _without_reply_to(signature: Any) -> None:
    options = signature["options"]
    options.pop("reply_to", None)
    for link in ("link", "link_error"):
        for each in maybe_list(options.get(link)) or ():
            _without_reply_to(each)


def _typed(value: Any) -> Any:
    """Return a value with all its types, in a form that is the same for the same only."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(_typed(key), _typed(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [_typed(each) for each in value]
    return kind, value
