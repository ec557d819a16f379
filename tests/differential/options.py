"""The options of a call: what each may be."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import kombu.compression
import kombu.serialization
from celery.canvas import Signature
from kombu import Exchange, Queue

from ..servers import TESTER
from .comparison import DEFAULT_QUEUE, NOW, Options

__all__ = [
    "BINDINGS",
    "COMPRESSIONS",
    "OPTIONS",
    "QUEUES",
    "SERIALIZERS",
]

kombu.serialization.register(
    "reversed",
    lambda content: json.dumps(content, default=str)[::-1],
    lambda text: json.loads(text[::-1]),
    content_type="application/x-reversed",
    content_encoding="utf-8",
)
kombu.compression.register(
    lambda body: body[::-1], lambda body: body[::-1], "application/x-mirrored", ["mirrored"]
)
SERIALIZERS = ("json", "pickle", "yaml", "msgpack", "reversed")
#: By content type, and by some of the names that they go by.
COMPRESSIONS = (*sorted(kombu.compression.encoders()), "gzip", "bzip2", "mirrored")

_INDIA = timezone(timedelta(hours=5, minutes=30))
_NAIVE = datetime(2030, 3, 1, 18, 0)

_DIRECT = Queue("direct", Exchange("direct-x", "direct"), "direct-key")
_TOPIC = Queue("topic", Exchange("topic-x", "topic"), "a.#")
_TRANSIENT = Queue("transient", Exchange("transient-x", "fanout", delivery_mode=1))
_LIMITED = Queue("limited", max_priority=9, message_ttl=3600, expires=3600, max_length=1000)
_QUORUM = Queue("quorum", queue_arguments={"x-queue-type": "quorum"})

#: The queues that the options lead to, beside the default one.
QUEUES: list[Queue | str] = ["other", "routed", _DIRECT, _TOPIC, _TRANSIENT, _LIMITED, _QUORUM]
#: What else leads to the default queue: exchanges that are there, and routing keys.
BINDINGS = (
    (DEFAULT_QUEUE, "x"),
    ("amq.direct", "key"),
    ("amq.topic", "#"),
    ("amq.fanout", ""),
)

#: A linked task: by its signature, and as it comes from JSON.
_LINKED = Signature("linked", (1,), {"n": 2}, {"queue": "other"})
_FROM_JSON = dict(Signature("linked", (), {}, {"link": [dict(_LINKED)]}, immutable=True))

#: What a call may say, by what it is about.
OPTIONS: dict[str, list[Options]] = {
    "args": [
        {"args": (1, "ä €", None, 2.5, [True], {"k": {"n": 1}})},
        {"args": [], "kwargs": {}},
        {"kwargs": {"x": "y", "n": [1, 2]}},
        {"args": ("x" * 140_000,)},
        {"args": (NOW, b"\x00\xff", Decimal("1.10"), {1, 2})},
    ],
    "countdown": [{"countdown": each} for each in (10, 0.5, 0, -5)],
    "eta": [
        {"eta": each}
        for each in (
            NOW + timedelta(hours=1),
            (NOW + timedelta(hours=1)).astimezone(_INDIA),
            _NAIVE,
            _NAIVE.isoformat(),
            NOW - timedelta(days=1),
        )
    ],
    "expires": [
        {"expires": each}
        for each in (
            *(60, 0.25, 0, -1, None),
            *(NOW + timedelta(hours=2), (NOW + timedelta(hours=2)).astimezone(_INDIA)),
            *(_NAIVE, _NAIVE.isoformat(), (NOW + timedelta(hours=1)).isoformat()),
            NOW - timedelta(days=1),
        )
    ],
    "time limits": [
        {"time_limit": 10},
        {"soft_time_limit": 2.5},
        {"time_limit": 10, "soft_time_limit": 5},
        {"time_limit": None, "soft_time_limit": None},
    ],
    "priority": [{"priority": each} for each in (0, 5, 255, None)],
    "shadow": [{"shadow": "seen as"}],
    "headers": [
        {"headers": {}},
        {"headers": {"tenant": "blue", "n": 1, "none": None, "yes": True, "x-ä": "ö"}},
        {"headers": {"small": -1, "long": 2**40, "float": 0.1, "decimal": Decimal("1.10")}},
        {"headers": {"bytes": b"\x00\xff", "when": datetime(2030, 1, 1, tzinfo=UTC)}},
        {"headers": {"nested": {"deep": [1, "a", None, {"x": [2.5]}]}, "empty": {}}},
        {"headers": {"retries": 7, "shadow": "from a header"}},
        {"headers": {"set": {1}}},
    ],
    "stamps": [
        {"stamped_headers": ["tenant", "on"], "tenant": "blue", "on": [1, 2]},
        {"stamped_headers": []},
    ],
    "ignore_result": [{"ignore_result": each} for each in (True, False, None)],
    "delivery_mode": [{"delivery_mode": each} for each in (1, 2, "transient", "persistent")],
    "group": [
        {"group_id": "the group", "group_index": 2},
        {"group_id": "the group", "chord": _LINKED},
    ],
    "ancestors": [
        {"root_id": "the root", "parent_id": "the parent"},
        {"root_id": "the root"},
        {"parent_id": "the parent", "add_to_parent": False},
    ],
    "chain": [{"chain": [_LINKED, _FROM_JSON]}],
    "retries": [{"retries": 3}, {"replaced_task_nesting": 2}],
    "link": [{"link": _LINKED}, {"link": [_LINKED, _FROM_JSON]}, {"link": []}],
    "link_error": [{"link_error": _FROM_JSON}, {"link_error": [_LINKED]}],
    "reply_to": [{"reply_to": "somebody else"}],
    "repr": [{"argsrepr": "(hidden)", "kwargsrepr": "{hidden}"}],
    "origin": [{"origin": "somewhere@else"}],
    "properties": [
        {"app_id": "app", "type": "a type", "cluster_id": "c", "user_id": TESTER},
        {"message_id": "mine", "timestamp": 1_900_000_000, "no_property": "dropped"},
        {"correlation_id": "other than the task's"},
    ],
    "publishing": [
        {"retry": False},
        {"retry": True, "retry_policy": {"max_retries": 1, "interval_start": 0.5}},
        {"timeout": 20, "confirm_timeout": 20.5},
        {"mandatory": True},
    ],
    "serializer": [{"serializer": each} for each in (*SERIALIZERS, "unknown")],
    "compression": [{"compression": each} for each in (*COMPRESSIONS, "unknown")],
    "destination": [
        {"queue": "other"},
        {"queue": _DIRECT},
        {"queue": _TOPIC},
        {"queue": _TOPIC, "routing_key": "a.b"},
        {"queue": _TRANSIENT},
        {"queue": _LIMITED},
        {"queue": _QUORUM},
        {"queue": Queue("other", Exchange(""), "other")},
        {"exchange": "amq.direct", "routing_key": "key"},
        {"exchange": "amq.topic", "routing_key": "x.y", "exchange_type": "topic"},
        {"exchange": Exchange("amq.fanout", "fanout"), "routing_key": "ignored"},
        {"exchange": "amq.fanout", "exchange_type": "fanout"},
        {"exchange": "amq.direct"},
        {"exchange": "", "routing_key": "other"},
        {"routing_key": "other"},
        {"exchange_type": "topic", "routing_key": "x"},
        {"exchange": "amq.direct", "routing_key": "leads nowhere"},
        {"queue": "other", "exchange": "amq.direct", "routing_key": "key"},
    ],
    "route name": [{"route_name": "another task"}],
}
