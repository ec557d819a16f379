"""Which tasks' results are waited for, and the channels that announce them. No sockets here."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self

from ...core.completion import Completion
from ...core.outcomes import Outcome, PendingResults
from ...errors import BridgetaskError

__all__ = ["Watch", "Watches"]


class Watch(weakref.ref[Outcome]):
    """A task whose result is waited for: calling this returns its outcome, or None.

    It is a weak reference itself, as there may be very many of them: an outcome lives as long as
    somebody holds a handle of it.
    """

    __slots__ = ("again", "channel", "read", "task_id", "unsent")

    def __new__(
        cls, outcome: Outcome, on_collected: Callable[[Any], None], channel: bytes, *, unsent: bool
    ) -> Self:
        return super().__new__(cls, outcome, on_collected)

    def __init__(
        self, outcome: Outcome, on_collected: Callable[[Any], None], channel: bytes, *, unsent: bool
    ) -> None:
        self.channel: bytes = channel
        self.task_id: str = outcome.task_id
        #: Whether the task was still to be sent when the watch began.
        self.unsent: bool = unsent
        #: Whether it is read once more, after the subscription was lost.
        self.again: bool = False
        #: Done when what was stored before the subscription has been read; None where that is yet
        #: to be begun, again after the subscription was lost. A failure is not kept: its traceback
        #: would hold whom it was raised for.
        self.read: Completion | None = None

    @property
    def precedes_the_task(self) -> bool:
        """Whether the subscription held before the task could be anywhere."""
        outcome = self()
        delivery = outcome.delivery if outcome is not None else None
        has_left = delivery is None or delivery.left or delivery.done
        return self.unsent and not (self.again and has_left)


class Watches:
    """Begins to watch a task when it is asked about, and ends when nobody can ask any more.

    :param key_for: returns the key, and so the channel, of a task.
    :param on_begin: called with each new watch.
    :param on_end: called with each watch that ends.
    """

    def __init__(
        self,
        key_for: Callable[[str], bytes],
        pending: PendingResults,
        loop: asyncio.AbstractEventLoop,
        on_begin: Callable[[Watch], None],
        on_end: Callable[[Watch], None],
    ) -> None:
        self._key_for = key_for
        self._pending = pending
        self._loop = loop
        self._on_begin = on_begin
        self._on_end = on_end
        self._watches: dict[bytes, Watch] = {}
        self._on_collected = self._collected

    def __len__(self) -> int:
        return len(self._watches)

    def __iter__(self) -> Iterator[Watch]:
        return iter(list(self._watches.values()))

    def at(self, channel: bytes) -> Watch | None:
        """Return the watch at a channel, or None."""
        return self._watches.get(channel)

    def over(self, task_id: str) -> Watch | None:
        """Return the watch over a task; None for one that is done, or that nobody asks about."""
        channel = self._key_for(task_id)
        outcome = self._pending.get(task_id)
        if outcome is None or outcome.final is not None:
            return None
        watch = self._watches.get(channel)
        if watch is None or watch() is not outcome:
            unsent = outcome.delivery is not None and not outcome.delivery.done
            watch = Watch(outcome, self._on_collected, channel, unsent=unsent)
            self._watches[channel] = watch
            self._on_begin(watch)
        return watch

    def leave(self, channel: bytes) -> None:
        """End the watch at a channel, if there is one."""
        watch = self._watches.pop(channel, None)
        if watch is not None:
            self._on_end(watch)

    @property
    def unfinished(self) -> list[Watch]:
        """The watches over results that are still to come."""
        return [
            watch
            for watch in self._watches.values()
            if (outcome := watch()) is not None and not outcome.done
        ]

    @property
    def unread(self) -> list[Watch]:
        """Those of them that are yet to be read since they were subscribed to."""
        return [watch for watch in self.unfinished if watch.read is None]

    def give_up(self, error: BridgetaskError) -> None:
        """Fail what is unread of tasks that the broker has; for the others, that is awaited."""
        for watch in self.unread:
            outcome = watch()
            if outcome is not None and (outcome.delivery is None or outcome.delivery.done):
                self.leave(watch.channel)
                outcome.fail(error)

    def _collected(self, gone: Watch) -> None:
        """Leave a channel, on the loop: the last handle may be dropped in any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._leave_if, gone)

    def _leave_if(self, gone: Watch) -> None:
        if self._watches.get(gone.channel) is gone:
            self.leave(gone.channel)
