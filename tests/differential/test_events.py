"""``task-sent`` events, which ``task_send_sent_event`` asks for."""

from __future__ import annotations

import json
from itertools import product

import pytest
from kombu import Exchange, Queue

from .comparison import Options
from .conftest import MakeDifferential

#: Workers send heartbeats through the same exchange.
_EVENTS = Queue("events", Exchange("celeryev", "topic"), "task.#")
OPTIONS: list[Options] = [
    {"args": (1, "ä"), "kwargs": {"x": [2]}},
    {"countdown": 10, "expires": 60},
    {"queue": "other", "retries": 2},
    {"argsrepr": "(hidden)", "root_id": "root", "parent_id": "parent"},
    {"shadow": "seen as", "serializer": "pickle", "priority": 3},
    {"ignore_result": True, "headers": {"tenant": "blue"}},
]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"event_serializer": "yaml", "task_serializer": "yaml"},
        {"event_queue_prefix": "prefix", "task_publish_retry": False},
        {"result_backend": "disabled://"},
    ],
    ids=repr,
)
def test_events_are_the_same(
    differential: MakeDifferential, conf: dict[str, object], protocol: int
) -> None:
    compared = differential(
        *("other", "routed", _EVENTS), task_send_sent_event=True, task_protocol=protocol, **conf
    )
    for name, options in product(("plain", "options", "routed", "unregistered"), OPTIONS):
        for called in (name, compared.app.tasks.get(name, name)):
            (event,) = compared.compare_task(called, **options)["events"]
            assert (event.exchange, event.routing_key) == ("celeryev", "task.sent")
            if "event_serializer" not in conf:
                assert json.loads(event.body)["uuid"] == "the task's id"
