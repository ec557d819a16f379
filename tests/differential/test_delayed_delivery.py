"""Calls for later, with quorum queues: through RabbitMQ's native delayed delivery."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from kombu import Exchange, Queue

from .comparison import DEFAULT_QUEUE, NOW, Options
from .conftest import MakeDifferential

_QUORUM = {"x-queue-type": "quorum"}
#: Where all that is delayed goes first; the number of seconds is in the routing key.
_DELAYED = Queue("delayed", Exchange("celery_delayed_27", "topic"), "#")
_NAIVE = datetime(2030, 3, 1, 18, 0)
WHEN: list[Options] = [
    *({"countdown": each} for each in (1, 59.9, 3600, 2**27, 0, 0.5, -5)),
    {"eta": NOW + timedelta(hours=1, milliseconds=900)},
    {"eta": NOW - timedelta(hours=1)},
    {"eta": _NAIVE},
    {"eta": _NAIVE.isoformat()},
    {"eta": "2030-03-01T20:00:00+05:45"},
    {"countdown": 30, "eta": NOW + timedelta(hours=1)},
    {"countdown": 2**28},
    {},
]
WHERE: list[Options] = [
    {},
    {"queue": "quorum"},
    {"queue": Queue("topic", Exchange("topic-x", "topic"), "a.b", queue_arguments=_QUORUM)},
    {"exchange": "topic-x", "exchange_type": "topic", "routing_key": "a.b"},
    {"queue": "direct"},
    {"priority": 3, "expires": 3600},
]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_delayed_calls_send_the_same(
    differential: MakeDifferential, queue_type: str, protocol: int
) -> None:
    arguments = {"x-queue-type": queue_type}
    queues = [
        Queue(
            DEFAULT_QUEUE, Exchange("topic-d", "topic"), DEFAULT_QUEUE, queue_arguments=arguments
        ),
        Queue("quorum", Exchange("topic-q", "topic"), "q.key", queue_arguments=arguments),
        Queue("topic", Exchange("topic-x", "topic"), "a.b", queue_arguments=_QUORUM),
        Queue("direct", Exchange("direct-x", "direct"), "key", queue_arguments=arguments),
    ]
    conf: dict[str, Any] = {"task_queues": [each for each in queues if each.name != "topic"]}
    compared = differential(*queues, _DELAYED, default_queue=None, task_protocol=protocol, **conf)
    delayed = 0
    for where in WHERE:
        for when in WHEN:
            for called in ("plain", "unregistered", compared.app.tasks["plain"]):
                delayed += "delayed" in compared.compare_task(called, queue_type, **where, **when)
    assert bool(delayed) == (queue_type == "quorum")
