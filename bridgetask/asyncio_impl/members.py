"""The members of a group: added as they are called, and noted as they end."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from ..core.completion import Completion
from ..core.delivery import JointDelivery
from .handle import Handle, delivery_of, hold, is_done, when_done

__all__ = ["Members"]


class Members:
    """The handles of a group's members, in order. A large group is called member by member.

    :param delivery: done once the broker has every member; None for a group called elsewhere.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_first_left",
        "_handles",
        "_news",
        "closed",
        "delivery",
        "finish",
    )

    def __init__(self, delivery: JointDelivery | None = None) -> None:
        self.delivery: JointDelivery | None = delivery
        #: Done once no more members follow, or failed with the reason why some can't be called.
        self.closed: Completion = Completion()
        #: Calls the members that are left at once; None where there are none.
        self.finish: Callable[[], None] | None = None
        self._handles: list[Handle] = []
        #: The members that have ended, in that order; None until somebody asks.
        self._ended: list[Handle] | None = None
        self._news = Completion()
        #: All members before this index are done.
        self._first_left = 0

    def __len__(self) -> int:
        return len(self._handles)

    def __iter__(self) -> Iterator[Handle]:
        """Iterate over the members that have been called so far."""
        return iter(self._handles)

    def all(self) -> list[Handle]:
        """Return all members, calling those first that are left."""
        finish = self.finish  # the loop's thread may take it away
        if finish is not None and not self.closed.done:
            finish()
        return list(self._handles)

    def extend(self, handles: Sequence[Handle]) -> None:
        """Add members that were called."""
        self._handles += handles
        if self.delivery is not None:
            for handle in handles:
                delivery = delivery_of(handle)
                if delivery is not None:
                    self.delivery.join(delivery)

    def close(self, error: BaseException | None = None) -> None:
        """Take note that no members follow.

        :param error: the reason why some can't be called.
        """
        if self.closed.done:
            return
        if self.delivery is not None:
            self.delivery.close(error)
        self.finish = None
        self.closed.complete(error)

    def track(self, parent: Handle | None) -> list[Handle]:
        """Return the members that have ended, a list to which others are added as they end.

        :param parent: the group's parent, whose end counts as news.
        """
        if self._ended is None:
            self._ended = []
            this = weakref.ref(self)
            for index, handle in enumerate(self._handles):
                when_done(handle, partial(_note_end, this, index))
            if parent is not None:
                when_done(parent, partial(_note_end, this, None))
        return self._ended

    def news(self) -> Awaitable[None]:
        """Return an awaitable that ends with the next member, or with the group's parent."""
        return self.hold(self._news)

    def hold(self, completion: Completion) -> Awaitable[None]:
        """Return an awaitable that ends once ``completion`` is done, held by a pending member."""
        while is_done(self._handles[self._first_left]):
            self._first_left += 1
        return hold(self._handles[self._first_left], completion)

    def note_end(self, index: int | None) -> None:
        """Take note that a member has ended, or the group's parent."""
        if index is not None and self._ended is not None:
            self._ended.append(self._handles[index])
        if self._news.awaited:
            news, self._news = self._news, Completion()
            news.complete()

    def note_raised(self) -> None:
        """Take note that somebody was told why members were not sent, so that no log says it."""
        for handle in self._handles:
            delivery = delivery_of(handle)
            if delivery is not None:
                delivery.raised = True


def _note_end(members: weakref.ref[Members], index: int | None) -> None:
    """Note an end, unless the group was dropped: its members do not hold it."""
    held = members()
    if held is not None:
        held.note_end(index)
