"""Settings of an app that change what its calls send."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import AlwaysEagerIgnored
from kombu import Exchange, Queue

from .comparison import DEFAULT_QUEUE, TIMES, Differential
from .conftest import MakeDifferential

#: Settings, and the queue that they lead to, where it is not as Celery makes it by default.
SETTINGS: list[dict[str, Any]] = [
    {"task_default_delivery_mode": "transient"},
    {"task_default_priority": 3, "task_queue_max_priority": None},
    {"task_default_rate_limit": "10/m"},
    {"task_publish_retry": False},
    {"task_publish_retry_policy": {"max_retries": 1, "interval_start": 0.1}},
    {"task_ignore_result": True},
    {"task_store_errors_even_if_ignored": True},
    {"task_time_limit": 30, "task_soft_time_limit": 20},
    {"task_annotations": {"plain": {"priority": 6, "time_limit": 9, "serializer": "yaml"}}},
    {"task_annotations": {"*": {"compression": "gzip", "ignore_result": True}}},
    {"task_inherit_parent_priority": True},
    {"task_remote_tracebacks": True},
    {"task_repr_maxlevels": 1},
    {"task_acks_late": True, "task_track_started": True},
    {"result_expires": timedelta(minutes=1), "result_persistent": True},
    {"result_extended": True, "result_serializer": "pickle"},
    {"result_backend": None},
    {"result_backend": "disabled://"},
    {"broker_pool_limit": None},
    {"broker_transport_options": {"confirm_publish": True, "client_properties": {"a": "b"}}},
    {"task_create_missing_queues": False},
    {"task_default_exchange": "amq.direct"},
    {"task_default_exchange": "amq.direct", "task_default_routing_key": DEFAULT_QUEUE},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"queue": DEFAULT_QUEUE},
    {"priority": 5, "args": ([[[["deep"]]]],)},
    {"ignore_result": False},
    {"serializer": "msgpack", "compression": "zstd"},
    {"exchange": "amq.direct", "routing_key": DEFAULT_QUEUE},
]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("conf", SETTINGS, ids=repr)
def test_settings_do_the_same(
    differential: MakeDifferential, conf: dict[str, Any], protocol: int
) -> None:
    bindings = [("amq.direct", DEFAULT_QUEUE)]
    compared = differential("routed", bindings=bindings, task_protocol=protocol, **conf)
    compare_some(compared)


@pytest.mark.parametrize(
    ("queue", "conf"),
    [
        (
            Queue(DEFAULT_QUEUE, Exchange("topics", "topic"), "any.thing"),
            {
                "task_default_exchange": "topics",
                "task_default_exchange_type": "topic",
                "task_default_routing_key": "any.thing",
            },
        ),
        (
            Queue(
                DEFAULT_QUEUE, Exchange(DEFAULT_QUEUE), queue_arguments={"x-queue-type": "quorum"}
            ),
            {"task_default_queue_type": "quorum"},
        ),
        (Queue(DEFAULT_QUEUE, Exchange(""), max_priority=9), {"task_queue_max_priority": 9}),
    ],
    ids=["topic exchange", "quorum", "priorities"],
)
def test_settings_of_the_default_queue_do_the_same(
    differential: MakeDifferential, queue: Queue, conf: dict[str, Any]
) -> None:
    compare_some(differential("routed", default_queue=queue, **conf))


def compare_some(compared: Differential) -> None:
    for options in OPTIONS:
        for name in ("plain", "options", "unregistered"):
            compared.compare_task(name, **options)
        compared.compare_task(compared.app.tasks["plain"], **options)
        compared.compare_task(compared.app.tasks["options"].s(1).set(priority=1), **options)


def test_a_task_that_runs_eagerly_sends_nothing(differential: MakeDifferential) -> None:
    compared = differential(task_always_eager=True)
    doubled = compared.app.tasks["doubled"]
    made: list[Any] = []

    def call(client: Any) -> Any:
        made.append(client.apply_async(doubled, (21,)))
        return made[-1]

    assert compared.make(call) == (({}, None), ({}, None))
    theirs, ours = made
    assert (ours.state, ours.result) == (theirs.state, theirs.result) == ("SUCCESS", 42)


@pytest.mark.parametrize("protocol", [1, 2])
def test_send_task_ignores_that_tasks_run_eagerly(
    differential: MakeDifferential, protocol: int
) -> None:
    compared = differential(task_always_eager=True, task_protocol=protocol)
    with pytest.warns(AlwaysEagerIgnored) as warned:
        compared.compare_task("plain", args=(1,))
    assert len(warned) == 1 + TIMES


@pytest.mark.parametrize("name", ["plain", "options", "unregistered"])
def test_an_app_is_left_unfinalised(differential: MakeDifferential, name: str) -> None:
    """``send_task`` looks for a task without making those that are not made yet."""
    compared = differential("routed", finalize=False)
    assert compared.compare_task(name, countdown=5)
    assert not compared.app.finalized
