"""The handle of a group: its members, gathered in order or as they finish."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.completion import Completion
from ..core.delivery import JointDelivery
from ..core.outcomes import Outcome
from ..errors import ResultTimeout, SendError
from .result import AnyResult, walk

if TYPE_CHECKING:
    from .client import Client
    from .session import Session

__all__ = ["AsCompleted", "GroupResult"]


class GroupResult:
    """A group that was called. Awaiting it returns the members' values as a list, in order.

    A member is an :class:`AsyncResult`, or a ``GroupResult`` where it ends in a group itself; its
    value is a list, then. Large groups are called piece by piece, so as not to hold up the event
    loop: :meth:`sent` returns when all members are with the broker. Asking for ``results`` before
    that calls what is left on the spot.

    Made by :meth:`bridgetask.Client.apply_async`, never directly. Follows
    ``celery.result.GroupResult``.
    """

    __slots__ = (
        "__weakref__",
        "_built",
        "_client",
        "_delivery",
        "_ended",
        "_finish_building",
        "_first_left",
        "_members",
        "_news",
        "_session",
        "id",
        "parent",
    )

    def __init__(
        self,
        client: Client,
        session: Session,
        group_id: str,
        *,
        parent: AnyResult | None = None,
        delivery: JointDelivery | None = None,
    ) -> None:
        self._client = client
        self._session = session
        self._delivery = delivery
        self._members: list[AnyResult] = []
        self._built = Completion()
        self._finish_building: Callable[[], None] | None = None
        #: The members that have ended, in that order, once somebody waits for them.
        self._ended: list[AnyResult] | None = None
        self._news = Completion()
        self._first_left = 0
        #: The group's id.
        self.id: str = group_id
        #: What comes before the group in a chain, or None.
        self.parent: AnyResult | None = parent

    # What is known, without I/O.

    @property
    def results(self) -> list[AnyResult]:
        """The handles of the members, in order."""
        finish = self._finish_building  # the loop's thread may take it away
        if finish is not None and not self._built.done:
            finish()
        return list(self._members)

    children = results

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AnyResult]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AnyResult:
        return self.results[index]

    def __bool__(self) -> bool:
        return True

    def ready(self) -> bool:
        """Return whether all members have ended, well or not."""
        return self._built.done and all(member.ready() for member in self._members)

    def waiting(self) -> bool:
        """Return whether any member has not ended."""
        return not self.ready()

    def successful(self) -> bool:
        """Return whether all members returned a value."""
        return self._built.done and all(member.successful() for member in self._members)

    def failed(self) -> bool:
        """Return whether any member raised an exception."""
        return any(member.failed() for member in self._members)

    def completed_count(self) -> int:
        """Return how many members returned a value."""
        return sum(member.successful() for member in self._members)

    # What waits.

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.get().__await__()

    async def get(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """Wait for all members, and return their values in order.

        Cancelling this ends the waiting. The tasks run on, unless ``on_cancel`` says otherwise.

        :param timeout: seconds to wait at most, sending included.
        :param propagate: whether to raise the first exception of a member as soon as it is there,
            as ``GroupResult.join_native`` does, or to return it in its place of the list.
        :raises ResultTimeout: not all results came in time. The tasks are untouched.
        :raises Exception: what :meth:`AsyncResult.get` raises.
        """
        try:
            async with asyncio.timeout(timeout) as scope:
                await self._built.wait()
                async for member in self.as_completed():
                    if propagate:
                        member._value()
        except TimeoutError:
            if not scope.expired():  # it is a task's own
                raise
            raise ResultTimeout(
                f"group {self.id} was not complete within {timeout} s", task_id=self.id
            ) from None
        except asyncio.CancelledError:
            self._abandoned()
            raise
        except SendError:
            self._said_why()
            raise
        return self._value(propagate)

    join = get

    async def sent(self) -> None:
        """Wait until the broker has confirmed that it has every member.

        :raises SendError: it does not have one of them, or may not have it.
        :raises Exception: what Celery raised for a member that can't be sent.
        """
        await self._built.wait()
        if self._delivery is not None:
            try:
                await self._delivery.wait()
            except SendError:
                self._said_why()
                raise

    def as_completed(self) -> AsCompleted:
        """Return an iterator over the members' handles, in the order in which they end.

        .. code-block:: python

            async for call in group.as_completed():
                print(call.id, call.result)

        :raises ResultUnavailable: the result of a member can't come here.
        """
        return AsCompleted(self)

    async def revoke(self, terminate: bool = False, signal: str | None = None) -> None:
        """Tell all workers not to run the members; see :meth:`AsyncResult.revoke`."""
        ids = [outcome.task_id for outcome in self._outcomes()]
        await self._client.control.revoke(ids, terminate=terminate, signal=signal)

    async def forget(self) -> None:
        """Stop caring about the members' results; see :meth:`AsyncResult.forget`."""
        await asyncio.gather(*(member.forget() for member in self.results))

    async def refresh(self) -> None:
        """Make sure that news can arrive; see :meth:`AsyncResult.refresh`."""
        await asyncio.gather(*(member.refresh() for member in self.results))

    async def collect(self, intermediate: bool = False) -> AsyncIterator[tuple[AnyResult, Any]]:
        """Yield this, and all that the members called, each with its value.

        See :meth:`AsyncResult.collect`.
        """
        async for _, node in walk(self, intermediate):
            yield node, await node.get()

    def iterdeps(
        self, intermediate: bool = False
    ) -> AsyncIterator[tuple[AnyResult | None, AnyResult]]:
        """Yield pairs of a parent and its child; see :meth:`AsyncResult.iterdeps`."""
        return walk(self, intermediate)

    async def save(self) -> None:
        """Store which tasks the group consists of, for :meth:`bridgetask.Client.group_result`.

        Follows ``GroupResult.save``: Celery's own client can restore it, too.

        :raises ResultUnavailable: the result backend can't store groups, as ``rpc://`` can't.
        :raises BackendError: the result backend could not be asked.
        """
        await self._built.wait()
        await self._write(lambda backend: backend.save_group(self.id, self))

    async def delete(self) -> None:
        """Delete what :meth:`save` stored.

        :raises ResultUnavailable: the result backend can't store groups, as ``rpc://`` can't.
        :raises BackendError: the result backend could not be asked.
        """
        await self._write(lambda backend: backend.delete_group(self.id))

    def as_tuple(self) -> Any:
        """Return the ids of the group, its parents and its members, as Celery's does."""
        parent = None if self.parent is None else self.parent.as_tuple()
        return (self.id, parent), [member.as_tuple() for member in self.results]

    # Within.

    async def _write(self, write: Callable[[Any], object]) -> None:
        self._session.check_loop()
        store = self._session.group_store(self.id)
        await store.write(self._client._codec.recorder.record_writes(write))

    def _extend(self, members: Sequence[AnyResult]) -> None:
        """Add members that were called."""
        self._members += members
        if self._delivery is not None:
            for member in members:
                if member._delivery is not None:
                    self._delivery.join(member._delivery)

    def _close(self, error: BaseException | None) -> None:
        """Take note that no members follow."""
        if self._built.done:
            return
        if self._delivery is not None:
            self._delivery.close(error)
        self._finish_building = None
        self._built.complete(error)

    def _when_done(self, callback: Callable[[], object]) -> None:
        """Call back once all members have ended."""
        left = len(self._members)

        def one_less() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                callback()

        if not left:
            callback()
        for member in list(self._members):
            member._when_done(one_less)

    def _track(self) -> list[AnyResult]:
        """Begin to take note of who ends; return who has."""
        if self._ended is None:
            self._ended = []
            this = weakref.ref(self)
            for index, member in enumerate(self._members):
                member._when_done(partial(_note_end, this, index))
            if self.parent is not None:
                self.parent._when_done(partial(_note_end, this, None))
        return self._ended

    def _note_end(self, index: int | None) -> None:
        if index is not None and self._ended is not None:
            self._ended.append(self._members[index])
        if self._news.awaited:
            news, self._news = self._news, Completion()
            news.complete()

    @property
    def _done(self) -> bool:
        return self._built.done and all(member._done for member in self._members)

    async def _hold(self, completion: Completion) -> None:
        """Wait for something, held by a member that is still to end."""
        while self._members[self._first_left]._done:
            self._first_left += 1
        await self._members[self._first_left]._hold(completion)

    def _check_result_can_come(self) -> None:
        for member in self._members:
            member._check_result_can_come()

    def _expect(self) -> None:
        for member in self._members:
            member._expect()

    @property
    def _settled(self) -> bool:
        """Whether :meth:`_value` can be had, or raised, without waiting."""
        return self._built.done and all(member._settled for member in self._members)

    def _value(self, propagate: bool = True) -> list[Any]:
        """Return or raise what is there, once it is."""
        return [member._value(propagate) for member in self._members]

    def _raise_error(self) -> None:
        """Raise what a member raised, as ``ResultSet.maybe_throw`` does."""
        for member in self._members:
            member._raise_error()

    async def _wait(self) -> None:
        async for _ in self.as_completed():
            pass

    def _said_why(self) -> None:
        """Take note that somebody was told of the members that could not be sent."""
        for member in self._members:
            if member._delivery is not None:
                member._delivery.raised = True

    def _abandoned(self) -> None:
        for member in self._members:
            member._abandoned()

    def _outcomes(self) -> Iterator[Outcome]:
        for member in self.results:
            yield from member._outcomes()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return other.id == self.id
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} of {len(self._members)}>"


def _note_end(group: weakref.ref[GroupResult], index: int | None) -> None:
    """Tell a group that a member has ended, or its parent; if anybody still holds it."""
    held = group()
    if held is not None:
        held._note_end(index)


class AsCompleted(AsyncIterator[Any]):
    """The members of a group, in the order in which they end.

    Iterating raises what makes a member's result impossible. Cancelling an iteration harms
    nothing, and it can be continued.
    """

    def __init__(self, group: GroupResult) -> None:
        self._group = group
        self._position = 0

    async def __anext__(self) -> AnyResult:
        group = self._group
        await group._built.wait()
        if not self._position:
            group._session.check_loop()
            group._check_result_can_come()
            group._expect()
        ended = group._track()
        while self._position == len(ended):
            if self._position == len(group._members):
                raise StopAsyncIteration
            if group.parent is not None:
                group.parent._raise_error()  # the members will never be called
            await group._hold(group._news)
        member = ended[self._position]
        self._position += 1
        await member._wait()
        return member
