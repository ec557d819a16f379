"""Calls that block the event loop are errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blockbuster import BlockBuster

__all__ = ["blocking_refused"]

_refusing = False


def _unless_refusing(may_block: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *args, **options: not _refusing or may_block(*args, **options)


# Once and for all: some of these are methods of types that all threads of the process use. Where
# they were replaced for each test, and put back, threads of CPython 3.12.1 have crashed in them.
_DETECTOR = BlockBuster("bridgetask")
# Not locks: those that the worker in memory and the loop share are held for moments, and whether one
# of them is held at that moment depends on how fast the machine is.
for _name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
    del _DETECTOR.functions[_name]
for _function in _DETECTOR.functions.values():
    _function.can_block_predicate = _unless_refusing(_function.can_block_predicate)
_DETECTOR.activate()


@contextmanager
def blocking_refused() -> Iterator[None]:
    """Have what bridgetask calls on an event loop raise ``BlockingError`` if it blocks."""
    global _refusing
    _refusing = True
    try:
        yield
    finally:
        _refusing = False
