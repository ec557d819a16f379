"""Calls that block the event loop are errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blockbuster import BlockBuster

__all__ = ["blocking_refused"]

_DETECTOR = BlockBuster("bridgetask")
for _name in list(_DETECTOR.functions):
    # These replace the methods of a type that all threads of the process use meanwhile. On
    # CPython 3.12.1 threads have crashed in them.
    if _name.startswith("threading.Lock."):
        del _DETECTOR.functions[_name]


@contextmanager
def blocking_refused() -> Iterator[None]:
    """Have what bridgetask calls on an event loop raise ``BlockingError`` if it blocks."""
    _DETECTOR.activate()
    try:
        yield
    finally:
        _DETECTOR.deactivate()
