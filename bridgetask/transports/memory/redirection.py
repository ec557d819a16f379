"""Have code that calls tasks of an app reach something else than the app's broker and backend."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from celery import _state

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["redirected"]


class _Redirection:
    """Parts that stand for those of an app, for as long as it is active."""

    __slots__ = ("active", "app", "parts")

    def __init__(self, app: Celery, parts: Mapping[str, Any]) -> None:
        self.app = app
        self.parts = parts
        #: Contexts are copied, and a copy may outlive what it was made for.
        self.active = True


_current: ContextVar[_Redirection | None] = ContextVar("redirection", default=None)
#: How many times an app is redirected at this moment.
_redirections: WeakKeyDictionary[Celery, int] = WeakKeyDictionary()
_counting = threading.Lock()


def _renew_lock() -> None:
    """Make the lock anew after a fork: the thread that held it was not copied."""
    global _counting
    _counting = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def redirected(app: Celery, parts: Mapping[str, Any]) -> Iterator[None]:
    """Give this context other parts of an app than its own, by their names, and make it current.

    Copies of the context have them, too, until this ends: coroutines that are run inside, and
    functions that ``asyncio.to_thread`` and asgiref run in other threads. For everybody else the
    app stays what it is, and so it does for a client of bridgetask that is used inside. Tasks hold
    their app, and signatures their task, so that only the app itself can be redirected.
    """
    redirection = _Redirection(app, parts)
    current_app = _state._tls.current_app
    _count(app, 1)
    token = _current.set(redirection)
    _state._tls.current_app = app
    try:
        yield
    finally:
        _state._tls.current_app = current_app
        _current.reset(token)
        redirection.active = False
        _count(app, -1)


def _redirection() -> _Redirection | None:
    """Return the redirection of this context, if there is one."""
    redirection = _current.get()
    return redirection if redirection is not None and redirection.active else None


def _count(app: Any, change: int) -> None:
    """Give the app a class that can be redirected while anybody redirects it."""
    with _counting:
        before = _redirections.get(app, 0)
        after = _redirections[app] = before + change
        if not before:
            own_class: Any = type(app)
            app.__class__ = _redirectable(own_class)
        elif not after:
            app.__class__ = type(app).__base__
        _state._TLS.current_app = _CurrentApp() if any(_redirections.values()) else None


@cache
def _redirectable(app_class: Any) -> Any:
    own_attribute = app_class.__getattribute__

    class Redirectable(app_class):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            redirection = _redirection()
            if (
                redirection is None
                or redirection.app is not self
                or name not in redirection.parts
                or _asked_by_bridgetask()
            ):
                # Not by super(): another thread may have given the app its class back meanwhile.
                return own_attribute(self, name)
            return redirection.parts[name]

    Redirectable.__name__, Redirectable.__qualname__ = app_class.__name__, app_class.__qualname__
    return Redirectable


def _asked_by_bridgetask() -> bool:
    """Tell whether the code that asks the app for an attribute is bridgetask's own."""
    # It asked __getattribute__, which asks this. A frame may not be kept in a variable of its own.
    asking: FrameType = cast(Any, inspect.currentframe()).f_back.f_back
    name = str(asking.f_globals.get("__name__"))
    return name.partition(".")[0] == __name__.partition(".")[0]


class _CurrentApp:
    """The current app of threads in which none was made current: that of their context.

    In a worker such threads have the worker's app. An instance of this is the class attribute that
    Celery looks up where a thread has no attribute of its own.
    """

    def __get__(self, instance: object, owner: type | None = None) -> Celery | None:
        redirection = _redirection()
        return None if redirection is None else redirection.app
