"""The handle of a group: its members, gathered in order or as they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from ..errors import SendError
from .group_handle import AsCompleted, GroupHandle
from .handle import value_of, within

__all__ = ["AsCompleted", "GroupResult"]


class GroupResult(GroupHandle):
    """A group that was called. Awaiting it returns the members' values as a list, in order.

    A member is an :class:`AsyncResult`; or a ``GroupResult``, where it ends in a group itself, and
    its value is a list. A large group is called piece by piece, so as not to hold up the event
    loop: :meth:`sent` returns when the broker has all members. Asking for ``results`` before that
    calls the members that are left on the spot.

    Made by :meth:`bridgetask.Client.apply_async`, never directly. Follows
    ``celery.result.GroupResult``.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.get().__await__()

    async def get(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """Wait for all members, and return their values in order.

        Cancelling this ends the waiting. The tasks run on, unless ``on_cancel`` says otherwise.

        :param timeout: seconds to wait at most, sending included.
        :param propagate: whether to raise the first exception of a member as soon as it is there,
            as ``GroupResult.join_native`` does, or to return it in its place of the list.
        :raises ResultTimeout: not all results came in time. The tasks are not affected.
        :raises Exception: what :meth:`AsyncResult.get` raises.
        """

        async def wait() -> None:
            await self._members.closed.wait()
            async for member in self.as_completed():
                if propagate:
                    value_of(member)

        try:
            if timeout is None:
                await wait()
            else:
                await within(timeout, wait, self, f"group {self.id} was not complete")
        except asyncio.CancelledError:
            self._abandoned()
            raise
        except SendError:
            self._members.note_raised()
            raise
        return self._value(propagate)

    join = get

    async def sent(self) -> None:
        """Wait until the broker has confirmed that it has every member.

        Cancelling this ends the waiting, and nothing else.

        :raises SendError: it does not have one of them, or may not have it.
        :raises Exception: what Celery raised for a member that can't be sent.
        """
        await self._members.closed.wait()
        if self._delivery is not None:
            try:
                await self._delivery.wait()
            except SendError:
                self._members.note_raised()
                raise

    def as_completed(self) -> AsCompleted:
        """Return an iterator over the members' handles, in the order in which they end.

        .. code-block:: python

            async for call in group.as_completed():
                print(call.id, call.result)

        :raises ResultUnavailable: the result of a member can't come here.
        """
        return AsCompleted(self, self._members, self._session)

    async def revoke(self, terminate: bool = False, signal: str | None = None) -> None:
        """Tell all workers not to run the members; see :meth:`AsyncResult.revoke`."""
        ids = [outcome.task_id for outcome in self._outcomes()]
        await self._caller.revoke(ids, terminate=terminate, signal=signal)

    async def forget(self) -> None:
        """Give up on the members' results; see :meth:`AsyncResult.forget`."""
        await asyncio.gather(*(member.forget() for member in self.results))

    async def refresh(self) -> None:
        """Ask for news of every member; see :meth:`AsyncResult.refresh`."""
        await asyncio.gather(*(member.refresh() for member in self.results))

    async def save(self) -> None:
        """Store which tasks the group consists of, for :meth:`bridgetask.Client.group_result`.

        Follows ``GroupResult.save``: Celery's own client can restore it, too. If this is
        cancelled, the group may or may not have been stored.

        :raises ResultUnavailable: the result backend can't store groups, as ``rpc://`` can't.
        :raises BackendError: the result backend could not be asked.
        """
        await self._members.closed.wait()
        await self._write(lambda backend: backend.save_group(self.id, self))

    async def delete(self) -> None:
        """Delete what :meth:`save` stored.

        :raises ResultUnavailable: the result backend can't store groups, as ``rpc://`` can't.
        :raises BackendError: the result backend could not be asked.
        """
        await self._write(lambda backend: backend.delete_group(self.id))

    async def _write(self, write: Callable[[Any], object]) -> None:
        self._session.check_loop()
        store = self._session.group_store(self.id)
        await store.write(self._caller.record_writes(write))

    def as_tuple(self) -> Any:
        """Return the ids of the group, its parents and its members, as Celery's does."""
        identity, _ = super().as_tuple()
        return identity, [member.as_tuple() for member in self.results]

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} of {len(self._members)}>"
