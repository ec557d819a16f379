"""Calls that block the event loop are errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blockbuster import BlockBuster

__all__ = ["blocking_refused"]

_DETECTOR = BlockBuster("bridgetask")
_refusing = False


def _unless_refusing(may_block: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *args, **options: not _refusing or may_block(*args, **options)


for _name in list(_DETECTOR.functions):
    # These replace the methods of a type that all threads of the process use meanwhile. Where that
    # was done for each test, and undone, threads of CPython 3.12.1 have crashed in them.
    if _name.startswith("threading.Lock."):
        _of_locks = _DETECTOR.functions.pop(_name)
        _of_locks.can_block_predicate = _unless_refusing(_of_locks.can_block_predicate)
        _of_locks.activate()


@contextmanager
def blocking_refused() -> Iterator[None]:
    """Have what bridgetask calls on an event loop raise ``BlockingError`` if it blocks."""
    global _refusing
    _DETECTOR.activate()
    _refusing = True
    try:
        yield
    finally:
        _refusing = False
        _DETECTOR.deactivate()
