"""Routes, and queues and exchanges that do not exist yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import QueueNotFound
from kombu import Connection, Exchange, Queue

from bridgetask import InvalidOption

from .comparison import DEFAULT_QUEUE
from .conftest import MakeDifferential

_TOPIC = Queue("topic", Exchange("topic-x", "topic"), "a.#")


class Router:
    """A router as ``task_routes`` takes it: an object, or the path of its class."""

    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        return {"queue": "other", "priority": len(args or ())} if task == "plain" else None


class Upper:
    """What ``send_task`` takes as its ``router``."""

    def route(self, options: Any, name: str, args: Any = (), kwargs: Any = None, task: Any = None):
        return options | {"routing_key": "other", "exchange": "", "headers": {"name": name.upper()}}


def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
    given = {"x-task": repr(task), "x-id": id(task), "x-options": repr(sorted(options))}
    return {"queue": "other", "headers": given} if name == "plain" else None


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    "routes",
    [
        {"plain": "other"},
        {"plain": {"queue": "other"}},
        {"pl*": {"queue": "other", "priority": 3, "delivery_mode": 1}},
        {re.compile(r"pl.+|unreg.*"): {"queue": "topic", "routing_key": "a.b"}},
        {"plain": {"queue": _TOPIC}},
        {"plain": {"exchange": "amq.direct", "routing_key": "key", "serializer": "yaml"}},
        {"plain": {"exchange": "topic-x", "exchange_type": "topic", "routing_key": "a.c"}},
        ([("unknown.*", {"queue": "topic"}), ("*", {"queue": "other"})],),
        [{"nothing": "topic"}, {"plain": {"queue": "other", "compression": "gzip"}}],
        route,
        (route, {"unregistered": "topic"}),
        [Router()],
        f"{__name__}.route",
        [f"{__name__}.Router"],
    ],
    ids=lambda routes: re.sub(r" at 0x\w+", "", str(routes)),
)
def test_routes_are_followed(differential: MakeDifferential, routes: Any, protocol: int) -> None:
    compared = differential(
        *("other", "routed", _TOPIC),
        bindings=[("amq.direct", "key")],
        task_routes=routes,
        task_queues=[Queue("topic", _TOPIC.exchange, "a.#"), Queue("other", routing_key="other")],
        task_protocol=protocol,
    )
    for name in ("plain", "options", "routed", "unregistered"):
        for options in (
            {},
            {"args": (1, 2)},
            {"queue": "other", "priority": 7},
            {"queue": "routed"},
            {"exchange": "amq.direct", "routing_key": "key"},
            {"routing_key": "a.x"},
            {"route_name": "plain"},
            {"serializer": "json", "headers": {"h": 1}},
            {"router": Upper()},
        ):
            compared.compare_task(name, **options)
            if name != "unregistered":
                compared.compare_task(
                    compared.app.tasks[name].s(*options.pop("args", ())), **options
                )


@pytest.mark.parametrize(
    "queues",
    [
        [Queue("first", routing_key="first"), Queue("second", Exchange("x", "topic"), "s.#")],
        {"first": {"exchange": "first", "routing_key": "first"}, "second": {"exchange": "x"}},
        [Queue("first", Exchange("x", "fanout"), queue_arguments={"x-max-length": 5})],
        [Queue("first")],
        [Queue("first", max_priority=5, expires=60, durable=False, auto_delete=True)],
    ],
    ids=["list", "dict", "arguments", "no exchange", "transient"],
)
@pytest.mark.parametrize("celery_first", [True, False])
def test_queues_are_declared_alike(
    gone: list[str], differential: MakeDifferential, celery_first: bool, queues: Any
) -> None:
    names = [each.name for each in queues] if isinstance(queues, list) else list(queues)
    gone += names
    compared = differential(task_queues=queues, task_default_queue=names[0], default_queue=None)
    for name in names:
        compared.declare(name, celery_first=celery_first)
        assert list(compared.compare_task("plain", queue=name)) == [name]


@pytest.mark.parametrize("celery_first", [True, False])
@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"task_default_exchange_type": "topic"},
        {"task_create_missing_queue_type": "quorum"},
        {"task_create_missing_queue_exchange_type": "topic"},
        {"task_queue_max_priority": 7},
    ],
    ids=repr,
)
def test_missing_queues_are_created_alike(
    gone: list[str], differential: MakeDifferential, celery_first: bool, conf: dict[str, Any]
) -> None:
    gone.append("missing")
    compared = differential(default_queue=None, task_default_queue="missing", **conf)
    compared.declare("missing", celery_first=celery_first)
    compared.compare_task("plain")
    compared.compare_task("plain", queue="missing")


@pytest.mark.parametrize("routes", [None, {"plain": {"queue": "missing"}}])
def test_no_queue_is_created_where_that_is_not_allowed(
    differential: MakeDifferential, routes: Any
) -> None:
    compared = differential("routed", task_create_missing_queues=False, task_routes=routes)
    options = {"queue": "missing"} if routes is None else {}

    (theirs, their_error), (ours, our_error) = compared.make(
        lambda client: client.send_task("plain", **options)
    )
    assert (theirs, ours) == ({}, {})
    assert isinstance(their_error, QueueNotFound)
    assert isinstance(our_error, InvalidOption)
    assert our_error.option == "queue"
    assert "missing" in str(our_error)
    compared.compare_task("plain", queue=DEFAULT_QUEUE)


@pytest.fixture
def gone(broker_url: str) -> Iterator[list[str]]:
    """Queues and exchanges to remove at the end, since the test has them made by those it tests."""
    names: list[str] = []
    yield names
    with Connection(broker_url) as connection:
        for name in names:
            connection.default_channel.queue_delete(name)
        for name in (*names, "x"):
            connection.default_channel.exchange_delete(name)
