"""Which tasks' results are waited for, and the channels that announce them. No sockets here."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

from ...errors import BridgetaskError
from ..completion import Completion
from ..pending import Outcome, PendingResults

__all__ = ["Watch", "Watches"]


class Watch:
    """A task whose result is waited for."""

    __slots__ = ("channel", "outcome", "read", "task_id", "unsent")

    def __init__(
        self, channel: bytes, task_id: str, outcome: weakref.ref[Outcome], *, unsent: bool
    ) -> None:
        self.channel: bytes = channel
        self.task_id: str = task_id
        #: Weakly: an outcome lives as long as somebody holds a handle of it.
        self.outcome: weakref.ref[Outcome] = outcome
        #: Whether the task was still to be sent when the watch began.
        self.unsent: bool = unsent
        #: Whether what was stored before the subscription has been read.
        self.read: Completion = Completion()


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
        if watch is None or watch.outcome() is not outcome:
            unsent = outcome.delivery is not None and not outcome.delivery.done
            reference = weakref.ref(outcome, lambda gone: self._collected(channel, gone))
            watch = self._watches[channel] = Watch(channel, task_id, reference, unsent=unsent)
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
            if (outcome := watch.outcome()) is not None and not outcome.completion.done
        ]

    def give_up(self, error: BridgetaskError) -> None:
        """Fail the results of tasks that are with the broker; for the others, that is awaited."""
        for watch in self.unfinished:
            outcome = watch.outcome()
            if outcome is not None and (outcome.delivery is None or outcome.delivery.done):
                self.leave(watch.channel)
                outcome.fail(error)

    def _collected(self, channel: bytes, gone: weakref.ref[Outcome]) -> None:
        """Leave a channel, on the loop: the last handle may be dropped in any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._leave_if, channel, gone)

    def _leave_if(self, channel: bytes, gone: weakref.ref[Outcome]) -> None:
        watch = self._watches.get(channel)
        if watch is not None and watch.outcome is gone:
            self.leave(channel)
