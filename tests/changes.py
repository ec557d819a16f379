"""Whatever changes what a call sends, changed between two calls: in place, and by replacing it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.app.routes import MapRoute, Router
from kombu import Exchange, Queue, binding

__all__ = ["CALLS", "CHANGES", "IRRELEVANT", "Change", "base_settings", "register_tasks"]


def base_settings(default_queue: str) -> dict[str, Any]:
    """Return settings that leave something to change, all of it made anew."""
    topics = Exchange("listed-x", "topic", arguments={"alternate-exchange": "amq.fanout"})
    return {
        "task_default_queue": default_queue,
        "task_queues": [
            Queue(default_queue),
            Queue("listed", topics, "listed.key", queue_arguments={"x-max-length": 10_000}),
        ],
        "task_routes": {
            "routed": {"queue": "listed", "priority": 1, "headers": {"from": "the route"}},
            "sent to*": {"exchange": "amq.topic", "routing_key": "a.b"},
        },
        "task_annotations": {"annotated": {"priority": 2}},
        "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0, "interval_max": 0.2},
    }


def _run(*args: Any, **kwargs: Any) -> None: ...


def register_tasks(app: Celery) -> None:
    """Register the tasks that the calls are of, but for those that are called by a mere name."""
    app.task(name="registered", shared=False)(_run)
    app.task(name="annotated", shared=False)(_run)
    app.task(name="routed", shared=False, time_limit=30)(_run)
    app.finalize()


#: Calls that differ in what they depend on, given the client, or the like, and its app.
CALLS: dict[str, Callable[[Any, Celery], Any]] = {
    "by name": lambda client, app: client.send_task("unregistered", (12345,)),
    "of a registered task": lambda client, app: client.send_task("registered", (12345,)),
    "by the task": lambda client, app: client.apply_async(app.tasks["annotated"], (12345,)),
    "by route": lambda client, app: client.send_task("routed", (12345,), {"k": [1, [2, [3]]]}),
    "by another's route": lambda client, app: client.send_task("x", route_name="routed"),
    "to an exchange": lambda client, app: client.send_task("sent to it"),
    "to a queue": lambda client, app: client.send_task("unregistered", queue="listed", priority=5),
    "to a queue of no setting": lambda client, app: client.send_task("unregistered", queue="other"),
}


@dataclass(frozen=True)
class Change:
    """Something to change in an app."""

    make: Callable[[Celery], object]
    #: The settings that it is about.
    settings: tuple[str, ...] = ()
    #: Whether it changes the next message of any of the calls. Celery reads some settings once.
    counts: bool = True
    #: Whether it changes what is to be declared, which RabbitMQ takes only once.
    declares: bool = False


def _set(name: str, value: Any, **about: Any) -> Change:
    return Change(lambda app: setattr(app.conf, name, value), (name,), **about)


def _listed(app: Celery) -> Any:
    return app.amqp.queues["listed"]


def _route(app: Celery) -> Any:
    return app.conf.task_routes["routed"]


def _policy(app: Celery) -> Any:
    return app.conf.task_publish_retry_policy


def _task(app: Celery) -> Any:
    return app.tasks["registered"]


def _forget_options(app: Celery, **options: Any) -> None:
    for name, value in options.items():
        setattr(_task(app), name, value)
    _task(app)._exec_options = None


def _register_anew(app: Celery) -> None:
    app.tasks.unregister("registered")
    app.task(name="registered", shared=False, serializer="yaml", priority=7)(_run)


def _replace_router(app: Celery) -> None:
    routes = [MapRoute({"*": "other"})]
    app.amqp.router = Router(routes, app.amqp.queues, create_missing=True, app=app)


def _exchange(**arguments: Any) -> Exchange:
    return Exchange("listed-x", "topic", **arguments)


_POLICY = "task_publish_retry_policy"
_DECLARES: dict[str, Any] = {"declares": True}
#: In messages, but for what is in Celery's caches.
CHANGES: dict[str, Change] = {
    # Settings that are replaced. Those that Celery reads when it first sends count no more.
    "default queue": _set("task_default_queue", "other"),
    "default exchange": _set("task_default_exchange", "amq.direct", counts=False),
    "default exchange type": _set("task_default_exchange_type", "topic", counts=False),
    "default routing key": _set("task_default_routing_key", "other", counts=False),
    "default queue type": _set("task_default_queue_type", "quorum", counts=False),
    "delivery mode": _set("task_default_delivery_mode", "transient", counts=False),
    "serializer": _set("task_serializer", "yaml", counts=False),
    "compression": _set("task_compression", "gzip", counts=False),
    "retry": _set("task_publish_retry", False, counts=False),
    "retry policy": _set(_POLICY, {"max_retries": 9}, counts=False),
    "routes": _set("task_routes", {"*": "other"}, counts=False),
    "queues": _set("task_queues", [Queue("listed", Exchange("y"))], counts=False),
    "missing queues": _set("task_create_missing_queues", False, counts=False),
    "missing queues' type": _set("task_create_missing_queue_type", "quorum", counts=False),
    "missing queues' exchange type": _set(
        "task_create_missing_queue_exchange_type", "topic", counts=False
    ),
    "queues' priority": _set("task_queue_max_priority", 9, counts=False),
    "annotations": _set("task_annotations", {"*": {"priority": 9}}, counts=False),
    "protocol": _set("task_protocol", 1, counts=False),
    "levels shown": _set("task_repr_maxlevels", 1),
    "events": _set("task_send_sent_event", True),
    "eager": _set("task_always_eager", True),
    "priority of the parent": _set("task_inherit_parent_priority", True, counts=False),
    "default priority": _set("task_default_priority", 5, counts=False),
    "ignored results": _set("task_ignore_result", True, counts=False),
    "rate limit": _set("task_default_rate_limit", "1/m", counts=False),
    "time limit": _set("task_time_limit", 60, counts=False),
    "soft time limit": _set("task_soft_time_limit", 50, counts=False),
    "UTC": _set("enable_utc", False, counts=False),
    "time zone": _set("timezone", "Asia/Kolkata", counts=False),
    # Settings that are changed by all other ways there are.
    "update": Change(lambda app: app.conf.update(task_default_queue="other")),
    "update of routes": Change(lambda app: app.conf.update(task_routes={"*": "other"})),
    "defaults": Change(lambda app: app.add_defaults({"task_send_sent_event": True})),
    "another source": Change(
        lambda app: app.config_from_object({"task_repr_maxlevels": 1}, force=True)
    ),
    "no changes": Change(lambda app: app.conf.clear()),
    "a layer": Change(lambda app: app.conf.maps[-1].update(task_repr_maxlevels=1)),
    # Settings that are changed in place.
    "policy in place": Change(lambda app: _policy(app).update(max_retries=9), (_POLICY,)),
    "policy grows": Change(lambda app: _policy(app).update(interval_step=0.7), (_POLICY,)),
    "policy shrinks": Change(lambda app: _policy(app).pop("interval_start"), (_POLICY,)),
    "route in place": Change(lambda app: _route(app).update(queue="other"), ("task_routes",)),
    "route grows": Change(lambda app: _route(app).update(serializer="yaml"), ("task_routes",)),
    "route shrinks": Change(lambda app: _route(app).pop("priority"), ("task_routes",)),
    "headers of a route": Change(
        lambda app: _route(app)["headers"].update(more=1), ("task_routes",)
    ),
    "headers of a route, replaced": Change(
        lambda app: _route(app).update(headers={"from": "another"}), ("task_routes",)
    ),
    "another route": Change(
        lambda app: app.conf.task_routes.update(unregistered={"queue": "other"}), counts=False
    ),
    "queue arguments": Change(
        lambda app: app.conf.task_queues[1].queue_arguments.update({"x-max-length": 5}),
        ("task_queues",),
        **_DECLARES,
    ),
    "queues in place": Change(
        lambda app: app.conf.task_queues.append(Queue("other", _exchange(), "x")), counts=False
    ),
    "annotations in place": Change(
        lambda app: app.conf.task_annotations["annotated"].update(priority=9), counts=False
    ),
    # Routers, and what they are made of.
    "router of code": Change(
        lambda app: app.amqp.router.routes.insert(0, lambda *_, **__: {"queue": "other"})
    ),
    "router of a map": Change(
        lambda app: app.amqp.router.routes.insert(0, MapRoute({"*": "other"}))
    ),
    "no routers": Change(lambda app: app.amqp.router.routes.clear()),
    "another router": Change(_replace_router),
    "a map's pattern": Change(
        lambda app: app.amqp.router.routes[0].patterns.clear(), ("task_routes",)
    ),
    # Queues and exchanges.
    "queue": Change(
        lambda app: app.amqp.queues.update(listed=Queue("listed", Exchange("y"), "k")), **_DECLARES
    ),
    "queue that is added": Change(
        lambda app: app.amqp.queues.add(Queue("other", Exchange("y", "topic"), "k")), **_DECLARES
    ),
    "queue that is gone": Change(lambda app: app.amqp.queues.pop("other", None), counts=False),
    "routing key": Change(lambda app: setattr(_listed(app), "routing_key", "k"), **_DECLARES),
    "durable": Change(lambda app: setattr(_listed(app), "durable", False), **_DECLARES),
    "length": Change(lambda app: setattr(_listed(app), "max_length", 7), **_DECLARES),
    "not declared": Change(lambda app: setattr(_listed(app), "no_declare", True), **_DECLARES),
    "new arguments": Change(
        lambda app: setattr(_listed(app), "queue_arguments", {"x-max-length": 5}), **_DECLARES
    ),
    "arguments of the binding": Change(
        lambda app: setattr(_listed(app), "binding_arguments", {"a": 1}), **_DECLARES
    ),
    "bindings": Change(
        lambda app: _listed(app).bindings.add(binding(Exchange("amq.topic"), "a")), **_DECLARES
    ),
    "exchange": Change(lambda app: setattr(_listed(app), "exchange", _exchange()), **_DECLARES),
    # kombu's == takes this one for the same.
    "passive exchange": Change(
        lambda app: setattr(
            _listed(app), "exchange", _exchange(passive=True, arguments=_ARGUMENTS)
        ),
        **_DECLARES,
    ),
    "exchange's name": Change(
        lambda app: setattr(_listed(app).exchange, "name", "amq.topic"), **_DECLARES
    ),
    "exchange's type": Change(
        lambda app: setattr(_listed(app).exchange, "type", "direct"), **_DECLARES
    ),
    "exchange's delivery mode": Change(
        lambda app: setattr(_listed(app).exchange, "delivery_mode", 1)
    ),
    "exchange's arguments": Change(
        lambda app: _listed(app).exchange.arguments.clear(), **_DECLARES
    ),
    # Tasks. Celery asks a task for its options once.
    "task's priority": Change(lambda app: setattr(_task(app), "priority", 3), counts=False),
    "task's serializer": Change(
        lambda app: setattr(_task(app), "serializer", "yaml"), counts=False
    ),
    "task's priority, asked anew": Change(lambda app: _forget_options(app, priority=3)),
    "task's queue, asked anew": Change(lambda app: _forget_options(app, queue="listed")),
    "task's limits, asked anew": Change(
        lambda app: _forget_options(app, time_limit=9, soft_time_limit=8)
    ),
    "task's options in place": Change(
        lambda app: _task(app)._get_exec_options().update(priority=3)
    ),
    "task's results": Change(
        lambda app: setattr(app.tasks["annotated"], "ignore_result", True),
    ),
    "task's annotation": Change(
        lambda app: app.tasks["annotated"].annotate() or _forget_options(app), counts=False
    ),
    "task": Change(_register_anew),
    "no task": Change(lambda app: app.tasks.unregister("registered"), counts=False),
    "a new task": Change(lambda app: app.task(name="unregistered", shared=False, priority=3)(_run)),
    # How messages are made.
    "message": Change(lambda app: setattr(app.amqp, "create_task_message", app.amqp.as_task_v1)),
    "arguments shown": Change(lambda app: setattr(app.amqp, "argsrepr_maxsize", 4)),
    "keywords shown": Change(lambda app: setattr(app.amqp, "kwargsrepr_maxsize", 4)),
}
_ARGUMENTS = {"alternate-exchange": "amq.fanout"}

#: What Celery reads as well until it has sent a message, and no message depends on: settings of
#: connections, of results and of workers.
IRRELEVANT: re.Pattern[str] = re.compile(
    "(broker|result|event)_.+|accept_content|task_(acks|reject|retry|store|track)_.+"
)
