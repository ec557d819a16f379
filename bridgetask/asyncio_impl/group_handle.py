"""How the handle of a group waits: the internal protocol of handles, for a group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from ..core.completion import Completion
from ..core.outcomes import Outcome
from .handle import Caller, Handle
from .members import Members
from .session import Session
from .state import State

__all__ = ["AsCompleted", "GroupHandle"]


class GroupState(State):
    """The latest updates of a group's members."""

    __slots__ = ()

    #: The class below this one has them.
    _members: Members

    @property
    def results(self) -> list[Handle]:
        """The handles of the members, in order."""
        return self._members.all()

    @property
    def children(self) -> list[Handle]:
        """The same as :attr:`results`, as Celery has it."""
        return self.results

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Handle]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Handle:
        return self.results[index]

    def __bool__(self) -> bool:
        return True

    def ready(self) -> bool:
        """Return whether all members have ended, well or not."""
        return self._members.closed.done and all(member.ready() for member in self._members)

    def waiting(self) -> bool:
        """Return whether any member has not ended."""
        return not self.ready()

    def successful(self) -> bool:
        """Return whether all members returned a value."""
        return self._members.closed.done and all(member.successful() for member in self._members)

    def failed(self) -> bool:
        """Return whether any member raised an exception."""
        return any(member.failed() for member in self._members)

    def completed_count(self) -> int:
        """Return how many members returned a value."""
        return sum(member.successful() for member in self._members)


class GroupHandle(GroupState, Handle):
    """The handle of a group, with all but the methods that users call to wait."""

    __slots__ = ("_members", "id")

    def __init__(
        self,
        caller: Caller,
        session: Session,
        group_id: str,
        members: Members,
        *,
        parent: Handle | None = None,
    ) -> None:
        super().__init__(caller, session, parent, members.delivery)
        self._members = members
        #: The group's id.
        self.id: str = group_id

    @property
    def _settled(self) -> bool:
        return self._members.closed.done and all(member._settled for member in self._members)

    def _value(self, propagate: bool = True) -> list[Any]:
        return [member._value(propagate) for member in self._members]

    def _raise_error(self) -> None:
        for member in self._members:
            member._raise_error()

    @property
    def _done(self) -> bool:
        return self._members.closed.done and all(member._done for member in self._members)

    def _when_done(self, callback: Callable[[], object]) -> None:
        members = list(self._members)
        left = len(members)

        def one_less() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                callback()

        if not left:
            callback()
        for member in members:
            member._when_done(one_less)

    async def _wait(self) -> None:
        async for _ in AsCompleted(self, self._members, self._session):
            pass

    def _hold(self, completion: Completion) -> Awaitable[None]:
        return self._members.hold(completion)

    def _check_result_can_come(self) -> None:
        for member in self._members:
            member._check_result_can_come()

    def _expect(self) -> None:
        for member in self._members:
            member._expect()

    def _abandoned(self) -> None:
        for member in self._members:
            member._abandoned()

    def _outcomes(self) -> Iterator[Outcome]:
        for member in self.results:
            yield from member._outcomes()


class AsCompleted(AsyncIterator[Any]):
    """The members of a group, in the order in which they end.

    Iterating raises the reason why a member can't have a result. Cancelling an iteration harms
    nothing, and it can be continued.
    """

    def __init__(self, group: GroupHandle, members: Members, session: Session) -> None:
        self._group = group
        self._members = members
        self._session = session
        self._position = 0

    async def __anext__(self) -> Handle:
        members, parent = self._members, self._group.parent
        await members.closed.wait()
        if not self._position:
            self._session.check_loop()
            self._group._check_result_can_come()
            self._group._expect()
        ended = members.track(parent)
        while self._position == len(ended):
            if self._position == len(members):
                raise StopAsyncIteration
            if parent is not None:
                parent._raise_error()  # the members will never be called
            await members.news()
        member = ended[self._position]
        self._position += 1
        await member._wait()
        return member
