"""Calls like earlier ones: the message that Celery made for those, with other ids and arguments.

Celery asks its settings, routers, queues and signals anew for each call, and mostly gets the
answers that it got before. So what a call came to is kept, with all that it depended on. While
that is as it was, the next call of the same name and options takes what the last one came to.
kombu serialises and compresses the arguments as ever.

Whatever is out of the ordinary goes Celery's way: options that are no plain values, dates, links,
stamps, chords, task protocol 1, calls inside of tasks, receivers of signals, routers that are code,
``task-sent`` events, and methods of Celery's or kombu's that somebody has replaced. A template is
made of the second call of its kind, and only if it reproduces that very message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import celery.app.amqp
import celery.app.base
import celery.app.task
import kombu.messaging
from celery import Celery, signals
from celery._state import _task_stack
from celery.app.amqp import AMQP
from celery.app.routes import MapRoute, Router
from celery.utils.saferepr import saferepr
from kombu import Producer, Queue
from kombu.utils.uuid import uuid

from ..transports.amqp.frames import PropertiesTemplate, encode_properties
from .lesson import Lesson, current_lesson
from .message import OutgoingMessage
from .shortcuts import ConfigurationView, plain_repr, plain_repr_serves

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["Templates"]

#: How many kinds of calls are remembered.
_REMEMBERED = 1024
#: Options that a message is not known by: those that differ from call to call, and what Celery's
#: canvas and tasks pass along.
_OF_THE_CALL = frozenset(
    {"task_id", "group_id", "group_index", "root_id", "parent_id", "producer", "result_cls"}
)
#: The headers that differ from call to call.
_VARYING = frozenset(
    {"id", "root_id", "parent_id", "group", "group_index", "argsrepr", "kwargsrepr"}
)
_LEVELS = "task_repr_maxlevels"
_PLAIN = frozenset({str, int, float, bool, type(None)})
#: Options that count from the moment of the call.
_TIMES = frozenset({"countdown", "eta", "expires"})
#: A router that is code, which may say something else each time.
_CODE = object()

_Key = tuple[Any, ...]


@dataclass(slots=True)
class _Template:
    """What a call came to, and what that depended on."""

    message: OutgoingMessage
    headers: dict[str, Any]
    encoder: PropertiesTemplate
    #: What follows ``args`` and ``kwargs`` in the body.
    embedded: dict[str, Any]
    serializer: str | None
    compression: str | None
    #: Whether ``argsrepr`` and ``kwargsrepr`` show the arguments, and were not given.
    shows_args: bool
    shows_kwargs: bool
    #: How many levels of them, as ``saferepr`` is told from Celery 5.6 on.
    levels: dict[str, Any]
    ignored: Any
    # What it depended on:
    settings: dict[str, Any]
    route: Any
    queues: tuple[Queue, ...]
    own_options: tuple[Any, Any]
    surroundings: tuple[Any, ...]


class Templates:
    """Makes the calls of an app's view: by Celery, or by a template.

    :param view: the view, whose ``AsyncResult`` stands for a call.
    :param conf: the view's configuration.
    """

    def __init__(
        self, app: Celery, view: Celery, conf: ConfigurationView, recorder: Recorder
    ) -> None:
        self._app = app
        self._amqp: Any = app.amqp
        self._view = view
        self._conf = conf
        self._recorder = recorder
        #: By what calls have in common: None for one that was seen once, or that was out of date.
        self._templates: dict[_Key, _Template | None] = {}
        #: Calls that there can be no template for.
        self._unfit: set[_Key] = set()

    def send_task(
        self,
        by_celery: Callable[..., Any],
        name: str,
        args: Any,
        kwargs: Any,
        task_type: Any,
        options: dict[str, Any],
    ) -> Any:
        """Do what ``Celery.send_task`` does, which is ``by_celery``; return Celery's result."""

        def send() -> Any:
            return by_celery(name, args, kwargs, task_type=task_type, **options)

        key = self._key(name, task_type, options)
        if key is None or not _is_ordinary() or key in self._unfit:
            return send()
        template = self._templates.get(key)
        if template is None:
            return self._learn(key, send, args, kwargs, options) if self._is_known(key) else send()
        if not self._stands(template, name):
            self._templates[key] = None
            return send()
        task_id = options.get("task_id") or uuid()
        self._recorder.add(self._message(template, task_id, args, kwargs, options))
        result = (options.get("result_cls") or self._view.AsyncResult)(task_id)
        result.ignored = template.ignored
        return result

    def _key(self, name: str, task_type: Any, options: Mapping[str, Any]) -> _Key | None:
        """Return what a call has in common with others; None where it can have no template."""
        key: list[Any] = [name, task_type is None]
        for option, value in options.items():
            if option in _OF_THE_CALL:
                continue
            kind = type(value)
            if kind not in _PLAIN or (option in _TIMES and value is not None):
                return None
            key += option, kind, value
        return tuple(key)

    def _is_known(self, key: _Key) -> bool:
        """Tell whether such a call was made before, and remember that one was."""
        if key in self._templates:
            return True
        if len(self._templates) >= _REMEMBERED:
            self._templates.clear()
            self._unfit.clear()
        self._templates[key] = None
        return False

    def __len__(self) -> int:
        return sum(template is not None for template in self._templates.values())

    # Using a template.

    def _stands(self, template: _Template, name: str) -> bool:
        """Tell whether all that a template depends on is as it was."""
        queues = self._amqp.queues
        return (
            self._conf.still_has(template.settings)
            and self._surroundings() == template.surroundings
            and self._own_options(name) == template.own_options
            and self._route(name) == template.route
            and all(queues.get(each.name) is each for each in template.queues)
        )

    def _message(
        self,
        template: _Template,
        task_id: str,
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
    ) -> OutgoingMessage:
        """Fill in a template."""
        args, kwargs = args or (), kwargs or {}
        headers, amqp = template.headers.copy(), self._amqp
        if template.shows_args:
            headers["argsrepr"] = plain_repr(args) or saferepr(
                args, amqp.argsrepr_maxsize, **template.levels
            )
        if template.shows_kwargs:
            headers["kwargsrepr"] = plain_repr(kwargs) or saferepr(
                kwargs, amqp.kwargsrepr_maxsize, **template.levels
            )
        headers["id"] = task_id
        headers["root_id"] = options.get("root_id") or task_id
        headers["parent_id"] = options.get("parent_id")
        headers["group"] = options.get("group_id")
        headers["group_index"] = options.get("group_index")
        body, content_type, content_encoding = self._recorder.producer._prepare(
            (args, kwargs, template.embedded),
            template.serializer,
            None,
            None,
            template.compression,
            headers,
        )
        made = template.message
        properties = made.properties.copy()
        properties["content_type"] = content_type
        properties["content_encoding"] = content_encoding
        properties["headers"] = headers
        properties["correlation_id"] = task_id
        return OutgoingMessage(
            made.exchange,
            made.routing_key,
            body.encode() if isinstance(body, str) else body,
            properties,
            made.declarations,
            retry=made.retry,
            timeout=made.timeout,
            task_id=task_id,
            encoded_properties=template.encoder.encode(headers, task_id),
        )

    # Making one.

    def _learn(
        self,
        key: _Key,
        send: Callable[[], Any],
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
    ) -> Any:
        lesson = Lesson()
        token = current_lesson.set(lesson)
        try:
            result = send()
        finally:
            current_lesson.reset(token)
        name = key[0]
        template = self._template(name, lesson, result.ignored, options)
        if (
            template is not None
            and self._stands(template, name)
            and self._reproduces(template, args, kwargs, options)
        ):
            self._templates[key] = template
        else:
            self._unfit.add(key)
        return result

    def _template(
        self, name: str, lesson: Lesson, ignored: Any, options: Mapping[str, Any]
    ) -> _Template | None:
        route = self._route(name)
        if route is _CODE or len(lesson.published) != 1 or not self._is_original(name):
            return None
        [published] = lesson.published
        message, body = published.message, published.body
        headers = message.properties.get("headers")
        if not isinstance(body, tuple) or not headers or any(body[2].values()):
            return None
        if headers.get("expires") is not None or "expiration" in message.properties:
            return None
        if message.requires or message.on_published:
            return None
        settings = lesson.settings
        if settings.get("task_always_eager"):  # of which each call is to warn
            return None
        return _Template(
            message,
            {name: value for name, value in headers.items() if name != "compression"},
            PropertiesTemplate(message.properties, _VARYING),
            embedded=body[2],
            serializer=published.serializer,
            compression=published.compression,
            shows_args=options.get("argsrepr") is None,
            shows_kwargs=options.get("kwargsrepr") is None,
            levels={"maxlevels": levels} if (levels := settings.get(_LEVELS)) is not None else {},
            ignored=ignored,
            settings=settings,
            route=route,
            queues=tuple(each for each in published.entities if isinstance(each, Queue)),
            own_options=self._own_options(name),
            surroundings=self._surroundings(),
        )

    def _reproduces(
        self, template: _Template, args: Any, kwargs: Any, options: Mapping[str, Any]
    ) -> bool:
        """Tell whether a template comes to the message that it was made of."""
        made = template.message
        assert made.task_id is not None
        again = self._message(template, made.task_id, args, kwargs, options)
        # The encoded properties have an order.
        return again == made and again.encoded_properties == encode_properties(made.properties)

    def _is_original(self, name: str) -> bool:
        """Tell whether what makes a message is Celery's and kombu's own code."""
        task = self._app._tasks.get(name)
        amqp = self._amqp
        return (
            _is_of(celery.app.base, type(self._app).send_task)
            and _is_of(kombu.messaging, Producer.publish)
            and _is_of(celery.app.amqp, AMQP.as_task_v2)
            and plain_repr_serves(amqp, self._conf)
            and type(amqp.router) is Router
            and (task is None or _is_of(celery.app.task, type(task)._get_exec_options))
        )

    # What a message depends on, beside the settings that Celery asks for and the queues.

    def _surroundings(self) -> tuple[Any, ...]:
        amqp = self._amqp
        made = vars(amqp)  # past kombu's cached_property, which takes a lock
        return (
            os.getpid(),  # which is part of the origin
            type(self._app).send_task,
            Producer.publish,
            made.get("create_task_message"),
            made.get("router"),
            amqp.argsrepr_maxsize,
            amqp.kwargsrepr_maxsize,
        )

    def _own_options(self, name: str) -> tuple[Any, Any]:
        """Return the task by that name, if it is registered, and the options it has by itself."""
        task = self._app._tasks.get(name)
        return task, None if task is None else task._exec_options

    def _route(self, name: str) -> Any:
        """Return what the routers say; None if they say nothing."""
        router = vars(self._amqp).get("router") or self._amqp.router
        for route in router.routes:
            if type(route) is not MapRoute:
                return _CODE
            found = route(name)
            if found is not None:
                return found
        return None


def _is_ordinary() -> bool:
    """Tell whether a call is made outside of a task, and nobody listens to Celery's signals."""
    return not (
        signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
        or _task_stack.stack
    )


def _is_of(module: ModuleType, function: Any) -> bool:
    return isinstance(function, FunctionType) and function.__globals__ is vars(module)
