"""Translates what waits for results, and dresses handles as Celery's results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from celery import Celery, current_app, states
from celery.result import AsyncResult, GroupResult, ResultSet

import bridgetask
from bridgetask import ResultUnavailable

from .bridge import Bridge
from .routing import Router

__all__ = ["app_of", "as_celerys", "route_results"]


def app_of(owner: Any) -> Celery:
    """Return the app of a task, a signature or a result."""
    app = getattr(owner, "_app", None)
    if app is None:  # a chord that is asked for its app makes members of its header to find out
        app = getattr(getattr(owner, "body", None), "_app", None) or getattr(owner, "app", None)
    return current_app._get_current_object() if app is None else app


def as_celerys(app: Celery, handle: Any) -> Any:
    """Return a result of Celery's that stands for a handle of bridgetask's."""
    if handle is None:
        return None
    parent = as_celerys(app, handle.parent)
    if isinstance(handle, bridgetask.GroupResult):
        members = [as_celerys(app, member) for member in handle.results]
        result = app.GroupResult(handle.id, members, parent=parent)
    else:
        result = app.AsyncResult(handle.id, parent=parent)
        result.ignored = handle.ignored
    result.handle = handle
    return result


def route_results(router: Router, bridge: Bridge) -> None:
    """Let everything that asks for a result go through bridgetask."""
    _SingleResults(bridge).route(router)
    _GroupResults(bridge).route(router)


class _SingleResults:
    """The translations of ``AsyncResult``."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def route(self, router: Router) -> None:
        for name in ("get", "forget", "revoke", "exists", "ready", "successful", "failed"):
            router.method(AsyncResult, name, getattr(self, name))
        for name in ("collect", "iterdeps", "get_leaf", "_get_task_meta"):
            router.method(AsyncResult, name, getattr(self, name))
        router.method(AsyncResult, "wait", self.get)
        router.method(AsyncResult, "then", self.then, counted=False)
        for name in ("state", "result", "traceback", "children"):
            router.attribute(AsyncResult, name, getattr(self, name))
        router.attribute(AsyncResult, "status", self.state)
        router.attribute(AsyncResult, "info", self.result)

    # What waits.

    def get(
        self,
        result: Any,
        timeout: float | None = None,
        propagate: bool = True,
        callback: Any = None,
        **options: Any,
    ) -> Any:
        handle = self._handle(result)
        try:
            value = self._run(result, handle.get(timeout, propagate))
        finally:
            self._note_end(result)
        if callback is not None:
            callback(result.id, value)
        return value

    def get_leaf(self, result: Any) -> Any:
        return self._run(result, self._handle(result).get_leaf())

    def collect(self, result: Any, intermediate: bool = False, **_: Any) -> Iterator[Any]:
        app = app_of(result)
        pairs = self._handle(result).collect(intermediate)
        return ((as_celerys(app, node), value) for node, value in self._each(result, pairs))

    def iterdeps(self, result: Any, intermediate: bool = False) -> Iterator[Any]:
        app = app_of(result)
        pairs = self._handle(result).iterdeps(intermediate)
        return (
            (as_celerys(app, parent), as_celerys(app, child))
            for parent, child in self._each(result, pairs)
        )

    def then(self, result: Any, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Register without Celery's own consumer of results, which sets of them do at once."""
        return result.on_ready.then(callback, on_error)

    def forget(self, result: Any) -> None:
        self._run(result, self._handle(result).forget())

    def revoke(
        self,
        result: Any,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        if wait:
            return NotImplemented  # Celery's goes by the control, which is routed
        return self._run(result, self._handle(result).revoke(terminate, signal))

    def exists(self, result: Any) -> bool:
        return bool(self._run(result, self._handle(result).exists()))

    # What is known.

    def ready(self, result: Any) -> bool:
        return bool(self._latest(result).ready())

    def successful(self, result: Any) -> bool:
        return bool(self._latest(result).successful())

    def failed(self, result: Any) -> bool:
        return bool(self._latest(result).failed())

    def state(self, result: Any) -> Any:
        return self._latest(result).state

    def result(self, result: Any) -> Any:
        return self._latest(result).result

    def traceback(self, result: Any) -> Any:
        return self._latest(result).traceback

    def children(self, result: Any) -> Any:
        children = self._latest(result).children
        return children and [as_celerys(app_of(result), child) for child in children]

    def _get_task_meta(self, result: Any) -> dict[str, Any]:
        update = self._run(result, self._handle(result).refresh())
        if update is None:
            return {"status": states.PENDING, "result": None}
        return {
            **update.meta,
            "status": update.state,
            "result": update.result,
            "traceback": update.traceback,
            "children": self.children(result),
        }

    # Within.

    def _handle(self, result: Any) -> Any:
        """Return the handle behind a result, also of one that somebody else made."""
        if not hasattr(result, "handle"):
            result.handle = self._bridge.call(
                app_of(result), lambda client: client.result(result.id)
            )
            if result.parent is not None and hasattr(result.parent, "id"):
                result.handle.parent = self._handle(result.parent)
        return result.handle

    def _latest(self, result: Any) -> Any:
        """Return the handle, which knows what there is to know at this moment."""
        handle = self._handle(result)
        self._run(result, handle.refresh())
        self._note_end(result)
        return handle

    def _note_end(self, result: Any) -> None:
        """Tell those who registered with ``then``, as ``_maybe_set_cache`` does."""
        if result.handle.ready() and not result.on_ready.ready:
            result.on_ready(result)

    def _run(self, result: Any, awaitable: Any) -> Any:
        return self._bridge.wait(app_of(result), lambda _: awaitable)

    def _each(self, result: Any, items: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._run(result, anext(items))
            except StopAsyncIteration:
                return


class _GroupResults:
    """The translations of ``GroupResult``.

    bridgetask has no ``ResultSet``, and makes a ``GroupResult`` only by a call. For all others
    Celery's own code goes through the members, each of which is routed.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def route(self, router: Router) -> None:
        for name in ("join", "join_native"):
            router.method(ResultSet, name, self.join)
        for name in ("ready", "successful", "failed", "waiting", "completed_count"):
            router.method(ResultSet, name, self._known(name))
        for name in ("forget", "revoke"):
            router.method(ResultSet, name, self._done(name))
        for name in ("save", "delete"):
            router.method(GroupResult, name, self._done(name))
        router.class_method(GroupResult, "restore", self.restore)

    def join(
        self,
        group: Any,
        timeout: float | None = None,
        propagate: bool = True,
        callback: Any = None,
        **_: Any,
    ) -> Any:
        if not hasattr(group, "handle") or callback is not None:
            return self._join_members(group, timeout, propagate, callback)
        return self._run(group, group.handle.get(timeout, propagate))

    def _join_members(self, group: Any, timeout: Any, propagate: bool, callback: Any) -> Any:
        """Follow ``ResultSet.join``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        values = []
        for member in group.results:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            values.append(member.get(left, propagate))
            if callback is not None:
                callback(member.id, values[-1])
        return values if callback is None else []

    def restore(self, cls: Any, id: str, backend: Any = None, app: Any = None) -> Any:
        app = app or getattr(backend, "app", None) or current_app._get_current_object()
        try:
            handle = self._bridge.wait(app, lambda client: client.group_result(id))
        except ResultUnavailable:
            return None  # which is what Celery's says
        return as_celerys(app, handle)

    def _known(self, name: str) -> Any:
        def translation(group: Any) -> Any:
            if not hasattr(group, "handle"):
                return NotImplemented
            self._run(group, group.handle.refresh())
            return getattr(group.handle, name)()

        return translation

    def _done(self, name: str) -> Any:
        def translation(group: Any, *_: Any, **options: Any) -> Any:
            if not hasattr(group, "handle"):
                return NotImplemented
            return self._run(group, getattr(group.handle, name)(**options))

        return translation

    def _run(self, group: Any, awaitable: Any) -> Any:
        return self._bridge.wait(app_of(group), lambda _: awaitable)
