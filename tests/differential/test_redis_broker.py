"""The same call through Celery's own client and through bridgetask, compared in Redis' ``MONITOR``.

Left out is what changes nothing: reading bindings, lengths of queues, the health of connections. A
script may be sent by its text or by its digest. All else must be the same, byte for byte, but for
uuids.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import CDeprecationWarning
from kombu import Exchange, Queue
from kombu.common import Broadcast
from kombu.exceptions import OperationalError

from bridgetask import Client, InvalidOption, NotRoutable

from ..fix_rabbitmq import close_celery, configured
from ..redis_monitor import Monitor
from ..redis_servers import Redis, Sentinels
from .comparison import ADDRESS, NOW, TALLY, TIMES, FrozenCelery, _CelerysOwn
from .conftest import add_tasks

#: The databases that messages and results are in.
DB, RESULTS_DB = 14, 15
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: A body of JSON in base 64.
_BODY = re.compile(rb'(?<=^{"body": ")(?:[WIey][A-Za-z0-9+/]+=*)')
#: What events and commands say of their moment.
_MOMENT = re.compile(rb"(clock|timestamp|expires)(\W+)[0-9.]+")
_MOMENTARY = (b'"exchange": "celeryev"', b'"exchange": "celery.pidbox"')
#: Commands that change nothing.
_IDLE = {
    *(b"SELECT", b"PING", b"LLEN", b"CLIENT", b"SMEMBERS", b"SCRIPT", b"HELLO", b"AUTH", b"INFO"),
    *(b"SUBSCRIBE", b"UNSUBSCRIBE"),  # to results
}

Commands = list[list[bytes]]
_MEDIA, _ALL, _NAMED = Exchange("media", "topic"), Exchange("all", "fanout"), Exchange("named")
_SIGNED = {"args": (1,), "task_id": "the task's id"}


@dataclass
class Case:
    """An app's settings, and the calls to make of it."""

    calls: list[Callable[[Any, Celery], Any]] = field(default_factory=list)
    conf: dict[str, Any] = field(default_factory=dict)
    #: The transport's options.
    options: dict[str, Any] = field(default_factory=dict)
    backend: str | None = None
    #: What is bound already, as workers would have bound it.
    declared: list[Queue] = field(default_factory=list)


def named(name: str = "plain", **options: Any) -> Callable[[Any, Celery], Any]:
    """Call a task by its name."""
    return lambda client, app: client.send_task(name, **{**_SIGNED, **options})


def applied(make: Callable[[Callable[..., Any]], Any]) -> Callable[[Any, Celery], Any]:
    """Call a signature, made by what is given a function that signs tasks."""

    def call(client: Any, app: Celery) -> Any:
        def sign(name: str, *args: Any, **options: Any) -> Any:
            return app.signature(name, args, **options).clone(task_id=f"the id of {args}")

        return client.apply_async(make(sign))

    return call


def on(queue: Queue, *calls: Callable[[Any, Celery], Any], **options: Any) -> Case:
    """Send to one queue of the app's."""
    made = list(calls) or [named(queue=queue.name)]
    return Case(made, {"task_queues": [queue]}, options)


STEPS = {"priority_steps": list(range(10)), "sep": ":"}
PREFIX = {"global_keyprefix": "pre_"}

CASES: dict[str, Case] = {
    # Those of the trial.
    "default": Case([named(), named("options"), named("routed"), named("bound", kwargs={"x": 1})]),
    "priorities": Case([named(priority=each) for each in (0, 2, 3, 5, 7, 9, 11, 255, None)]),
    "prefix": Case([named(priority=3), named()], options=PREFIX),
    "steps and separator": Case([named(priority=3), named(priority=9)], options=STEPS),
    "topic": Case(
        [named(exchange="media", routing_key="a.b", queue=None)],
        {"task_queues": [Queue("q1", _MEDIA, "a.#"), Queue("q2", _MEDIA, "*.b")]},
        declared=[Queue("q1", _MEDIA, "a.#"), Queue("q2", _MEDIA, "*.b")],
    ),
    "queue of a topic": on(Queue("q1", _MEDIA, "a.#"), named(queue="q1", routing_key="a.x")),
    "queue of a fanout": on(Queue("qf", _ALL, "x")),
    "fanout without prefix": on(Queue("qf", _ALL), fanout_prefix=False, fanout_patterns=False),
    "another routing key": on(Queue("qd", _NAMED, "other")),
    "a queue that expires": on(Queue("qe", _NAMED, "qe", expires=300)),
    "one by another routing key": on(Queue("qe2", _NAMED, "zz", expires=300)),
    "expires": Case([named(expires=60, countdown=3), named(expires=NOW + timedelta(hours=1))]),
    "pickle": Case([named(args=(b"\x00\xff", {1}))], {"task_serializer": "pickle"}),
    "gzip": Case([named(), named(compression="bzip2")], {"task_compression": "gzip"}),
    # And others.
    "yaml and msgpack": Case([named(serializer="yaml"), named(serializer="msgpack")]),
    "bodies as they are": Case(
        [named(args=("ä €",)), named(serializer="pickle"), named(compression="gzip")],
        options={"body_encoding": None},
    ),
    "large": Case([named(args=("ä" * 300_000,))]),
    "protocol 1": Case([named(), named(link={"task": "linked"})], {"task_protocol": 1}),
    "countdown": Case([named(countdown=10), named(eta=NOW + timedelta(days=1))]),
    "headers": Case(
        [
            named(headers={"tenant": "blue", "n": 1, "none": None, "deep": {"x": [2.5]}}),
            named(shadow="seen as", headers={}),
            named(headers={"set": {1}}),  # which JSON has not got
        ]
    ),
    "stamps": Case([named(stamped_headers=["tenant"], tenant="blue")]),
    "properties of other brokers": Case(
        [named(MessageGroupId="g", DelaySeconds=5, app_id="a", type="t", message_id="mine")]
    ),
    "transient": Case([named(delivery_mode=1), named(delivery_mode="transient")]),
    "without retries": Case([named(retry=False), named(retry_policy={"max_retries": 1})]),
    "ignored": Case([named(ignore_result=True)], {"task_ignore_result": True}),
    "quorum queues": Case(
        [named(), named(countdown=10), named(queue="other", countdown=10)],
        {"task_default_queue_type": "quorum"},
    ),
    "limits of a queue": on(
        Queue("ql", max_priority=9, message_ttl=60, max_length=10), named(queue="ql", priority=9)
    ),
    "steps without 0": Case([named(), named(priority=9)], options={"priority_steps": [3, 6]}),
    "prefix and topic": Case(
        [named(queue="q1", routing_key="a.b")],
        {"task_queues": [Queue("q1", _MEDIA, "a.#"), Queue("q2", _MEDIA, "*.b", expires=60)]},
        PREFIX,
        declared=[Queue("q2", _MEDIA, "*.b", expires=60)],
    ),
    "prefix and fanout": on(Queue("qf", _ALL), **PREFIX),
    "prefix and a queue that expires": on(
        Queue("qe", _NAMED, "zz", expires=300), **PREFIX, **STEPS
    ),
    "another prefix of fanouts": on(Queue("qf", _ALL), fanout_prefix="/own."),
    "broadcast": on(Broadcast("told"), named(queue="told")),
    "an exchange that nobody declares": Case([named(exchange="unknown", routing_key="x")]),
    "one that workers have declared": Case(
        [named(exchange="named", routing_key="zz"), named(exchange="named", routing_key="nowhere")],
        declared=[Queue("qz", _NAMED, "zz"), Queue("qz2", _NAMED, "zz")],
    ),
    "dead letters": Case(
        [named(exchange="named", routing_key="nowhere")],
        options={"deadletter_queue": "dead"},
        declared=[Queue("qz", _NAMED, "zz")],
    ),
    "a topic that leads nowhere": on(
        Queue("q1", _MEDIA, "a.#"), named(queue="q1", routing_key="b.x")
    ),
    "an exchange to another": on(
        Queue("qx", Exchange("bound", "direct"), bindings=[]), named(queue="qx")
    ),
    "headers exchange": on(Queue("qh", Exchange("by-headers", "headers"), "x")),
    "routes": Case(
        [named(), named("routed")],
        {"task_routes": {"plain": {"queue": "elsewhere", "priority": 6}}},
    ),
    "names of queues": Case([named(queue="ä"), named(queue="with space"), named(queue="a" * 300)]),
    "task-sent events": Case([named()], {"task_send_sent_event": True}),
    "results by rpc": Case([named(), named(reply_to="somebody")], backend="rpc://"),
    "results in redis": Case([named(), named(link={"task": "linked"})], backend="redis"),
    "canvas": Case(
        [
            applied(lambda sign: chain(sign("plain", 1), sign("plain", 2))),
            applied(lambda sign: group(sign("plain", 1), sign("routed", 2)).clone(task_id="g")),
            applied(lambda sign: sign("plain", 1).set(priority=9, queue="other")),
        ],
        backend="redis",
    ),
    "chords": Case(
        [applied(lambda sign: chord([sign("plain", 1), sign("plain", 2)], sign("plain", 3)))],
        backend="redis",
    ),
    "tasks of the app": Case(
        [lambda client, app: client.delay(app.tasks["doubled"], 2)], {"task_track_started": True}
    ),
    "order of queues": Case([named()], options={"queue_order_strategy": "priority"}),
    "a name": Case([named()], options={"client_name": "named"}),
    "for workers alone": Case(
        [named()], options={"visibility_timeout": 5, "ack_emulation": False, "unacked_key": "u"}
    ),
}


class Differential:
    """Makes calls through both clients of one app, and compares what Redis was told."""

    def __init__(self, app: Celery, monitor: Monitor) -> None:
        self._app = app
        self._monitor = monitor
        self.theirs, self._ours = _CelerysOwn(app), Client(app)
        with ExitStack() as closing:
            closing.callback(_close, app)
            self._runner = closing.enter_context(asyncio.Runner())
            closing.callback(lambda: self._runner.run(self._ours.close()))
            self._runner.run(self._ours.connect())
            self._closing = closing.pop_all()

    def close(self) -> None:
        TALLY.templates += len(self._ours._sessions.codec.recorder.templates.in_use)
        self._closing.close()

    def compare(self, case: str, call: Callable[[Any, Celery], Any]) -> None:
        """Make a call through both clients: the first time, and the times after it."""
        for time in range(TIMES):
            theirs, their_error = self._through_celery(call)
            ours, our_error = self._through_bridgetask(call)
            if their_error is not None:  # after it has declared its queue
                assert isinstance(our_error, (type(their_error), InvalidOption)), our_error
                assert not any(command[0] == b"LPUSH" for command in ours + theirs)
                TALLY.refused.add(case)
                continue
            ours, theirs = _pushes_sorted(ours), _pushes_sorted(theirs)
            assert ours == theirs, _difference(ours, theirs)
            if our_error is not None:
                assert isinstance(our_error, NotRoutable), our_error
                assert not any(command[0] == b"LPUSH" for command in theirs)
                TALLY.unroutable.add(case)
            elif time == 0:
                TALLY.combinations.add(case)
                TALLY.messages += sum(command[0] in (b"LPUSH", b"PUBLISH") for command in theirs)

    def _through_celery(self, call: Any) -> tuple[Commands, Exception | None]:
        self._monitor.take(DB)
        error: Exception | None = None
        try:
            call(self.theirs, self._app)
        except Exception as reason:
            error = reason.__cause__ if isinstance(reason, OperationalError) else reason
            error = error if isinstance(error, Exception) else reason
        return self._taken(self._app.thread_oid), error

    def _through_bridgetask(self, call: Any) -> tuple[Commands, Exception | None]:
        async def run() -> Exception | None:
            try:
                await call(self._ours, self._app).sent()
            except Exception as error:
                return error
            finally:
                await self._ours._sessions.current._outbox.drain()  # an event may follow
            return None

        self._monitor.take(DB)
        error = self._runner.run(run())
        return self._taken(self._ours._sessions.codec.recorder.reply_to), error

    def _taken(self, address: str) -> Commands:
        """Return what was told, with what must differ taken out: ids, and the reply address."""
        ids: dict[bytes, bytes] = {}

        def numbered(found: re.Match[bytes]) -> bytes:
            return ids.setdefault(found[0], b"%036d" % len(ids))

        def normalised(argument: bytes) -> bytes:
            if b"application/json" in argument and b'"compression"' not in argument:
                argument = _BODY.sub(lambda body: b64decode(body[0]), argument)
            if any(each in argument for each in _MOMENTARY):
                argument = _MOMENT.sub(b"", argument)
            argument = argument.replace(address.encode(), ADDRESS)
            return _UUID.sub(numbered, argument)

        commands = [
            [normalised(each) for each in command]
            for command in self._monitor.take(DB)
            if command[0] not in _IDLE
        ]
        return _without_empty_transactions([_script_by_digest(each) for each in commands])


def _script_by_digest(command: list[bytes]) -> list[bytes]:
    if command[0] in (b"EVAL", b"EVALSHA"):
        return [b"a script", *command[2:]]
    return command


def _without_empty_transactions(commands: Commands) -> Commands:
    """Leave out transactions with nothing in them, and scripts that were sent by digest in vain."""
    kept: Commands = []
    for command in commands:
        if command == [b"EXEC"] and kept and kept[-1] == [b"MULTI"]:
            kept.pop()
        elif not (command[0] == b"a script" and kept and kept[-1] == command):
            kept.append(command)
    return kept


def _pushes_sorted(commands: list[Any]) -> list[Any]:
    """Return commands with the pushes that follow each other sorted by their lists.

    Where a message goes to several lists, kombu pushes it to them in the order of a set.
    """
    found: list[Any] = []
    for is_push, some in groupby(commands, key=lambda command: command[0] == b"LPUSH"):
        following = list(some)
        found += sorted(following, key=lambda command: command[1]) if is_push else following
    return found


def _difference(ours: Commands, theirs: Commands) -> str:
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            pairs = zip(repr(one), repr(other), strict=False)
            at = max(0, next((n for n, pair in enumerate(pairs) if len(set(pair)) > 1), 0) - 60)
            return f"...{repr(one)[at : at + 300]}... against ...{repr(other)[at : at + 300]}..."
    return f"{ours[len(theirs) :]} against {theirs[len(ours) :]}"


Make = Callable[[Case], Differential]


@pytest.fixture
def differential(redis_server: Redis) -> Iterator[Make]:
    """Return a function that makes a comparison of an app as a case has it."""
    with ExitStack() as open_ones, Monitor(redis_server) as monitor:

        def make(case: Case) -> Differential:
            results = redis_server.url(RESULTS_DB) if case.backend == "redis" else case.backend
            app = FrozenCelery(
                "differential", broker=redis_server.url(DB), backend=results, set_as_current=False
            )
            app.conf.update({"broker_transport_options": case.options} | case.conf)
            prepare(app, redis_server, case)
            made = Differential(app, monitor)
            open_ones.callback(made.close)
            return made

        yield make


def prepare(app: Celery, server: Redis, case: Case) -> None:
    """Register tasks, and have nothing in Redis but what is declared already."""
    add_tasks(configured(app))
    with warnings.catch_warnings():  # options that route are deprecated, and taken
        warnings.simplefilter("ignore", CDeprecationWarning)
        app.finalize()
    server.cli("-n", str(DB), "FLUSHDB")
    with app.connection_for_write() as connection:
        for queue in case.declared:
            queue(connection.default_channel).declare()


@pytest.mark.parametrize("about", CASES)
def test_redis_is_told_the_same(differential: Make, about: str) -> None:
    case = CASES[about]
    comparison = differential(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kombu's of dead letters
        for number, call in enumerate(case.calls):
            comparison.compare(f"redis {about} {number}", call)


def test_redis_behind_sentinels_is_told_the_same(sentinels: Sentinels) -> None:
    """With the second topic of kombu 5.7, too, where it is asked for."""
    for compatible in (False, True):
        options = {"master_name": sentinels.name, "sentinel_fanout_compat": compatible}
        case = Case([named(), named(queue="qf")], {"task_queues": [Queue("qf", _ALL)]})
        app = FrozenCelery("differential", broker=sentinels.url, set_as_current=False)
        app.conf.update({"broker_transport_options": options} | case.conf)
        app.conf.broker_url = sentinels.url.replace("/0", f"/{DB}")
        prepare(app, sentinels.master, case)
        with Monitor(sentinels.master) as monitor, closing(Differential(app, monitor)) as made:
            for number, call in enumerate(case.calls):
                made.compare(f"sentinels {compatible} {number}", call)


def test_commands_to_workers_are_the_same(differential: Make) -> None:
    comparison = differential(Case(options={"global_keyprefix": "pre_"}))
    for name, arguments in (("revoke", {"task_id": "x"}), ("pool_grow", {"n": 2})):

        def broadcast(client: Any, app: Celery, name: str = name, kept: Any = arguments) -> Any:
            if client is comparison.theirs:
                return app.control.broadcast(name, kept)
            return _Sent(client.control.broadcast(name, kept))

        comparison.compare(f"redis control {name}", broadcast)


def _close(app: Celery) -> None:
    """Close what Celery's own client has opened."""
    if str(app.conf.result_backend).startswith("redis"):
        app.backend.remove_pending_result = lambda result: result  # it would connect again
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()
    close_celery(app)


class _Sent:
    """What a command gives, to be waited for as a task is to be sent."""

    def __init__(self, sending: Awaitable[Any]) -> None:
        self._sending = sending

    async def sent(self) -> None:
        await self._sending
