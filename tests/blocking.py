"""Calls that block the event loop are errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blockbuster import BlockBuster

__all__ = ["blocking_refused", "locks_allowed"]

_refusing = False
_locks_allowed = False


def _unless_refusing(name: str, may_block: Callable[..., bool]) -> Callable[..., bool]:
    if name.startswith("threading.Lock."):
        return lambda *args, **options: (
            not _refusing or _locks_allowed or may_block(*args, **options)
        )
    return lambda *args, **options: not _refusing or may_block(*args, **options)


# Once and for all: some of these are methods of types that all threads of the process use. Where
# they were replaced for each test, and put back, threads of CPython 3.12.1 have crashed in them.
_DETECTOR = BlockBuster("bridgetask")
for _name, _function in _DETECTOR.functions.items():
    _function.can_block_predicate = _unless_refusing(_name, _function.can_block_predicate)
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


@contextmanager
def locks_allowed() -> Iterator[None]:
    """Let bridgetask wait for locks on an event loop.

    A worker in this process runs tasks in a thread, and shares locks with the loop. Each is held
    for moments; whether one is held when the loop asks for it depends on how fast the machine is.
    """
    global _locks_allowed
    _locks_allowed = True
    try:
        yield
    finally:
        _locks_allowed = False
