"""Translates what sends tasks, and commands to workers."""

from __future__ import annotations

import inspect
from typing import Any

from celery import Celery, Task, canvas
from celery.app.control import Control, Inspect

import bridgetask

from .bridge import Bridge
from .results import app_of, as_celerys
from .routing import Router

__all__ = ["route_calls", "route_control"]

#: What Celery's methods take, and a client of bridgetask has of its own.
_CONNECTIONS = ("producer", "connection", "channel")


def route_calls(router: Router, bridge: Bridge) -> None:
    """Let every way to call a task go through bridgetask."""

    def send_task(app: Celery, *args: Any, **options: Any) -> Any:
        if _drop_connections(options):
            return NotImplemented  # the caller wants it sent by what he gives
        handle = bridge.call(app, lambda client: client.send_task(*args, **options))
        return as_celerys(app, handle)

    def apply_async(called: Any, *args: Any, **options: Any) -> Any:
        if _drop_connections(options):
            return NotImplemented
        app = app_of(called)
        handle = bridge.call(app, lambda client: client.apply_async(called, *args, **options))
        return as_celerys(app, handle)

    router.method(Celery, "send_task", send_task)
    router.method(Task, "apply_async", apply_async)
    for owner in vars(canvas).values():
        if isinstance(owner, type) and "apply_async" in vars(owner):
            router.method(owner, "apply_async", apply_async)


def route_control(router: Router, bridge: Bridge) -> None:
    """Let every command to workers go through bridgetask."""

    def command(name: str) -> Any:
        def translation(control: Control, *args: Any, **kwargs: Any) -> Any:
            _drop_connections(kwargs)
            return bridge.wait(
                control.app, lambda client: getattr(client.control, name)(*args, **kwargs)
            )

        return translation

    def question(name: str) -> Any:
        def translation(inspect: Inspect, *args: Any, **kwargs: Any) -> Any:
            options = ("destination", "timeout", "callback", "limit", "pattern", "matcher")
            chosen = {each: getattr(inspect, each) for each in options}
            return bridge.wait(
                inspect.app,
                lambda client: getattr(client.control.inspect(**chosen), name)(*args, **kwargs),
            )

        return translation

    for owner, ours, translated in (
        (Control, bridgetask.Control, command),
        (Inspect, getattr(bridgetask, "Inspect", object), question),
    ):
        for name, method in vars(ours).items():
            if inspect.iscoroutinefunction(method) and name in vars(owner):
                router.method(owner, name, translated(name))


def _drop_connections(options: dict[str, Any]) -> bool:
    """Take connections out of a call's options; return whether there were any."""
    given = [options.pop(name, None) for name in _CONNECTIONS]
    return any(each is not None for each in given)
