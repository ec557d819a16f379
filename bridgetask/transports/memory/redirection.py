"""Have code that calls tasks of an app reach something else than the app's broker and backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery import _state

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["redirected"]


class _Here(threading.local):
    """What this thread is redirected to."""

    app: Celery | None = None
    parts: Mapping[str, Any] = {}


_here = _Here()
#: In how many threads an app is redirected.
_threads: WeakKeyDictionary[Celery, int] = WeakKeyDictionary()
_counting = threading.Lock()


@contextmanager
def redirected(app: Celery, parts: Mapping[str, Any]) -> Iterator[None]:
    """Give this thread other parts of an app than its own, by their names, and make it current.

    For other threads the app stays what it is. Tasks hold their app, and signatures their task, so
    that only the app itself can be redirected.
    """
    outer = _here.app, _here.parts, _state._tls.current_app
    _count(app, 1)
    _here.app, _here.parts, _state._tls.current_app = app, parts, app
    try:
        yield
    finally:
        _here.app, _here.parts, _state._tls.current_app = outer
        _count(app, -1)


def _count(app: Any, change: int) -> None:
    """Give the app a class that can be redirected while any thread is."""
    with _counting:
        before = _threads.get(app, 0)
        _threads[app] = before + change
        if not before:
            own_class: Any = type(app)
            app.__class__ = _redirectable(own_class)
        elif not _threads[app]:
            app.__class__ = type(app).__base__


@cache
def _redirectable(app_class: Any) -> Any:
    class Redirectable(app_class):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if _here.app is self and name in _here.parts:
                return _here.parts[name]
            return super().__getattribute__(name)

    Redirectable.__name__, Redirectable.__qualname__ = app_class.__name__, app_class.__qualname__
    return Redirectable
