"""Keeps updates of linked tasks that arrive before the program has handles for them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable

from ..wire.results import TaskUpdate

__all__ = ["EarlyUpdates"]

logger: logging.Logger = logging.getLogger(__name__)

#: For how many tasks updates are kept, how many for each, and of how many bytes in all.
_TASKS, _UPDATES, _BYTES = 1000, 256, 64 * 1024 * 1024


class EarlyUpdates:
    """Keeps what linked tasks report until the program asks for it, within bounds.

    A linked task may report before the result of the task that called it has arrived, and that
    result is what names it. The program may never ask, so the oldest tasks are dropped. One thread
    at a time may use this.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, list[tuple[TaskUpdate, int]]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, update: TaskUpdate, size: int) -> None:
        """Keep an update.

        :param size: how many bytes the update takes, about.
        """
        updates = self._kept.setdefault(update.task_id, [])
        if updates and (updates[-1][0].final or len(updates) == _UPDATES):
            return
        updates.append((update, size))
        self._size += size
        while len(self._kept) > _TASKS or self._size > _BYTES:
            task_id, forgotten = self._kept.popitem(last=False)
            self._size -= sum(size for _, size in forgotten)
            logger.debug("Nobody asked for the result of the linked task %.100r", task_id)

    def take(self, task_id: str) -> Iterable[TaskUpdate]:
        """Return and drop what was kept for a task."""
        updates = self._kept.pop(task_id, [])
        self._size -= sum(size for _, size in updates)
        return [update for update, _ in updates]
