"""Keeps what waits for a publisher confirm, by delivery tag. There is no I/O here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["ConfirmWindow"]

T = TypeVar("T")


class ConfirmWindow(Generic[T]):
    """What was published on a channel and is not confirmed yet.

    The broker numbers what is published on a channel, from 1 on, and confirms by these tags: one
    of them, or all up to one. Not always in their order.
    """

    def __init__(self) -> None:
        #: By their tags, from ``_first`` on; None where one is taken already.
        self._waiting: deque[T | None] = deque()
        self._first = 1

    def __len__(self) -> int:
        """How many tags, from the first that is still to be confirmed, were given out."""
        return len(self._waiting)

    def add(self, published: T) -> None:
        """Give the next tag to what is published now."""
        self._waiting.append(published)

    def take(self, tag: int, multiple: bool) -> list[T]:
        """Return, in order, what a confirm is about, but for what was taken or discarded before.

        :param multiple: whether the confirm is about all tags up to ``tag``.
        :raises LookupError: nothing with this tag waits for a confirm.
        """
        waiting = self._waiting
        at = tag - self._first
        if not 0 <= at < len(waiting):
            count = len(waiting)
            raise LookupError(f"delivery tag {tag}, while {count} wait from {self._first} on")
        if multiple:
            self._first += at + 1
            confirmed = [waiting.popleft() for _ in range(at + 1)]
            return [each for each in confirmed if each is not None]
        published = waiting[at]
        waiting[at] = None
        while waiting and waiting[0] is None:
            waiting.popleft()
            self._first += 1
        return [] if published is None else [published]

    def take_first(self, matches: Callable[[T], bool]) -> T | None:
        """Return the first that matches, if any. A confirm of it finds nothing."""
        for at, published in enumerate(self._waiting):
            if published is not None and matches(published):
                self._waiting[at] = None
                return published
        return None

    def discard(self, published: T) -> None:
        """Forget it, if it is there. A confirm of it finds nothing."""
        with suppress(ValueError):
            self._waiting[self._waiting.index(published)] = None

    def take_all(self) -> list[T]:
        """Return all that waits, in order: no confirm comes any more."""
        taken, self._waiting = self._waiting, deque()
        return [each for each in taken if each is not None]
