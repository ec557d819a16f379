"""Compares what a message depends on, beside the call itself, with what it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import is_
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import celery.app.amqp
import celery.app.base
import celery.app.routes
import celery.app.task
import kombu.messaging
from celery.app.amqp import AMQP
from celery.app.routes import MapRoute, Router
from kombu import Producer, Queue

from .configuration import KnownSettings
from .plain_repr import plain_repr_serves
from .snapshot import Snapshot

if TYPE_CHECKING:
    from celery import Celery

    from .observing import Observations

__all__ = ["Dependencies", "NoTemplate"]


class NoTemplate(Exception):
    """There can be no template for a call."""


class Dependencies:
    """Everything that Celery's code used to make a message, apart from the call itself.

    These are settings, routes, queues, exchanges, the options of a registered task, and Celery's
    and kombu's methods.

    :param task_name: the name that the call was made by: Celery uses the options of the task that
        is registered by it. None if the call was made by a task, whose options it had already.
    :param route_name: the name that routes are looked up by.
    :param observations: what Celery's code read while it made the message.
    :param kept_settings: the settings that Celery's sender read when it was made, and keeps.
    :raises NoTemplate: the message depends on something that can't be compared here.
    """

    __slots__ = (
        "_amqp",
        "_app",
        "_made",
        "_queues",
        "_route",
        "_route_name",
        "_settings",
        "_snapshot",
        "_surroundings",
        "_task",
        "_task_name",
        "_task_options",
    )

    def __init__(
        self,
        app: Celery,
        task_name: str | None,
        route_name: str,
        observations: Observations,
        kept_settings: Mapping[str, Any],
    ) -> None:
        self._app: Any = app
        self._amqp: Any = app.amqp
        self._made: dict[str, Any] = vars(self._amqp)  # kombu's cached_property takes a lock
        self._task_name = task_name
        self._route_name = route_name
        self._task: Any = self._app._tasks.get(task_name)
        self._task_options = None if self._task is None else self._task._exec_options
        self._surroundings = self._current_surroundings()
        self._route = self._current_route()
        if self._route is _CODE or not self._is_celerys_code():
            raise NoTemplate("code that is not Celery's own")
        self._settings = KnownSettings(app, observations.settings)
        published = [each for one in observations.published for each in one.entities]
        entities = [*observations.destinations, *published]
        self._queues = [(each.name, each) for each in entities if isinstance(each, Queue)]
        try:
            self._snapshot = Snapshot(
                tuple(observations.settings.values()),
                tuple(kept_settings.values()),
                self._route,
                self._task_options,
                tuple(entities),
            )
        except TypeError as error:
            raise NoTemplate("values that may be changed unseen") from error

    def are_current(self) -> bool:
        """Tell whether all of it is what it was."""
        task = self._app._tasks.get(self._task_name)
        if task is not self._task:
            return False
        if task is not None and task._exec_options is not self._task_options:
            return False
        queues = self._made.get("queues") or {}
        for name, queue in self._queues:
            if queues.get(name) is not queue:
                return False
        return (
            self._settings.are_current()
            and self._snapshot.is_current()
            and self._surroundings == self._current_surroundings()
            and _are_same(self._route, self._current_route())
        )

    def _current_surroundings(self) -> tuple[Any, ...]:
        amqp, made = self._amqp, self._made
        return (
            os.getpid(),  # which is part of the origin
            type(self._app).send_task,
            Producer.publish,
            Router.route,
            None if self._task is None else type(self._task)._get_exec_options,
            made.get("create_task_message"),
            made.get("router"),
            amqp.argsrepr_maxsize,
            amqp.kwargsrepr_maxsize,
        )

    def _current_route(self) -> Any:
        """Return the first route that a router returns; ``_CODE`` if a router is code."""
        router = self._made.get("router") or self._amqp.router
        for route in router.routes:
            if type(route) is not MapRoute:
                return _CODE
            found = route(self._route_name)
            if found is not None:
                return found
        return None

    def _is_celerys_code(self) -> bool:
        """Tell whether messages are made by Celery's and kombu's own code."""
        amqp, router = self._amqp, self._amqp.router
        return (
            _is_of(celery.app.base, type(self._app).send_task)
            and _is_of(kombu.messaging, Producer.publish)
            and _is_of(celery.app.amqp, AMQP.as_task_v2)
            and _is_of(celery.app.routes, Router.route)
            and plain_repr_serves(amqp, self._app.conf)
            and type(router) is Router
            and vars(router).keys() <= _ROUTER_ATTRIBUTES
            and (self._task is None or _is_of(celery.app.task, type(self._task)._get_exec_options))
        )


#: In place of the route of a router that is code, which may return another one each time.
_CODE = object()
_ROUTER_ATTRIBUTES = vars(Router()).keys()


def _are_same(route: Any, other: Any) -> bool:
    """Tell whether two routes have the same values. The snapshot compares what is in those."""
    if type(route) is not dict or type(other) is not dict:
        return route is other
    return (
        len(route) == len(other)
        and all(map(is_, route.values(), other.values()))
        and route.keys() == other.keys()
    )


def _is_of(module: ModuleType, function: Any) -> bool:
    return isinstance(function, FunctionType) and function.__globals__ is vars(module)
