"""Limits how many messages may wait to be sent."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..errors import Overloaded
from .completion import Completion

__all__ = ["Backlog"]


class Backlog:
    """How many messages wait for the broker's confirm, and how many may. Safe from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Refuse a call that comes on top of as many as there may be.

        :raises Overloaded: there are.
        """
        if self._count >= self._limit:
            raise Overloaded(
                f"{self._count} messages wait for the broker's confirm already (max_queued)"
            )

    def add(self, deliveries: Iterable[Completion]) -> None:
        """Count messages until they are settled."""
        for delivery in deliveries:
            with self._lock:
                self._count += 1
            delivery.then(self._settled)

    def _settled(self) -> None:
        with self._lock:
            self._count -= 1
