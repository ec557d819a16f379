"""The handle of a task: what is known of it, and how to wait for more."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from functools import partial
from typing import Any, Generic, TypeVar

from ..core.outcomes import Updates
from ..errors import ResultUnavailable, ResultUndecodable
from ..wire.results import TaskUpdate
from .handle import Handle, line_of, outcomes_of, within
from .task_handle import TaskHandle, wait_or_parent_fails

__all__ = ["AsyncResult"]

R = TypeVar("R")


class AsyncResult(TaskHandle, Generic[R]):
    """A task that was sent. Awaiting it returns the task's value, or raises its exception.

    Only what is awaited does I/O: all else answers with what is known. Any number of coroutines
    may wait. Cancelling one affects neither the task nor the other waiters, unless ``on_cancel``
    was given and it is the last waiter.

    Made by :meth:`bridgetask.Client.send_task` and its kin, never directly. Follows
    ``celery.result.AsyncResult``.
    """

    __slots__ = ()

    @property
    def children(self) -> list[Handle] | None:
        """Handles of the tasks and groups that this one called, or None while that is not known.

        By ``rpc://`` this client receives the results of linked tasks alone.

        :raises ResultUndecodable: the worker sent something else than children.
        """
        final = self._outcome.final
        if final is None:
            return None
        try:
            children = [self._caller.handle_of_tree(self._session, each) for each in final.children]
        except RecursionError as error:
            raise ResultUndecodable(
                "the children are nested too deeply", task_id=self.id
            ) from error
        outcomes = {each.task_id: each for child in children for each in outcomes_of(child)}
        if outcomes:  # they live as long as this one's outcome, so that asking again finds them
            self._outcome.children = (self._outcome.children or {}) | outcomes
        return children

    def __await__(self) -> Generator[Any, None, R]:
        return self.get().__await__()

    async def get(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Wait for the result.

        Cancelling this ends the waiting. The task runs on, unless ``on_cancel`` says otherwise.

        :param timeout: seconds to wait at most, sending included. 0 asks for a result that is
            there already.
        :param propagate: whether to raise the task's exception, or to return it.
        :returns: the task's return value; None where the task's result is ignored.
        :raises ResultTimeout: no result came in time. The task is not affected.
        :raises ResultUnavailable: no result can come.
        :raises ResultUndecodable: the result can't be read.
        :raises TaskRevoked: the task was revoked.
        :raises SendError: the task was not sent, or its outcome is unknown.
        :raises BackendError: Redis could not be asked for the result.
        :raises ClientClosed: the client was closed.
        :raises Exception: the task's own, with a ``RemoteTraceback`` as its cause; or
            :class:`bridgetask.errors.TaskFailed`, if its class is not loaded here. Also what a
            parent in a chain raised, as soon as that is known, as in Celery.
        """
        if timeout is not None and timeout <= 0 and self._session.store is not None:
            await self.refresh()
        follows = propagate and self.parent is not None and not self.ignored
        try:
            if timeout is not None:
                wait = partial(wait_or_parent_fails, self, self._session) if follows else self._wait
                await within(timeout, wait, self, f"task {self.id} gave no result")
            elif follows:
                await wait_or_parent_fails(self, self._session)
            else:
                await self._wait()
        except asyncio.CancelledError:
            self._abandoned()
            raise
        value: R = self._value(propagate)
        return value

    async def sent(self) -> None:
        """Wait until the broker has confirmed that it has the task.

        Cancelling this ends the waiting, and nothing else.

        :raises NotSent: the broker does not have it: unreachable, refused, not routable, too late.
        :raises Unconfirmed: the broker may or may not have it; the error carries the task's id.
        """
        if self._delivery is not None:
            if not self._delivery.done:
                self._session.check_loop()
            await self._outcome.wait(self._delivery)

    def updates(self) -> Updates:
        """Return an iterator over every state that the worker reports, in order.

        It begins with the states that are known already, and ends with the final one. For a task
        to report ``STARTED``, Celery's ``task_track_started`` must be on.

        .. code-block:: python

            async for update in call.updates():
                print(update.state, update.result)

        :raises ResultUnavailable: no update can come.
        """
        if not self._outcome.done:
            self._check_result_can_come()
            if self._outcome.delivery is None:
                self._expect()
        return self._outcome.subscribe()

    async def refresh(self) -> TaskUpdate | None:
        """Ask for news now, and return the latest update.

        From Redis, the stored state is read. By ``rpc://`` workers push every state, and nothing
        can be asked; but a lost connection is opened again.

        :raises BackendError: Redis could not be asked.
        :raises BrokerUnreachable: by ``rpc://``, the connection could not be opened.
        """
        self._session.check_loop()
        if self.ready() or self.ignored:
            return self._outcome.update
        if self._session.store is None:
            await self._session.connect()
        else:
            await self._session.refresh(self._outcome)
        return self._outcome.update

    async def exists(self) -> bool:
        """Tell whether the worker has stored anything about the task, as Celery's does.

        :raises BackendError: Redis could not be asked.
        :raises ResultUnavailable: results are not stored, and no state has come here.
        """
        if self._session.store is not None:
            self._session.check_loop()
            return await self._session.store.exists(self.id)
        if self._outcome.update is None:
            raise ResultUnavailable("only results in Redis can be asked for", task_id=self.id)
        return True

    async def revoke(self, terminate: bool = False, signal: str | None = None) -> None:
        """Tell all workers not to run the task, as ``AsyncResult.revoke`` of Celery does.

        Returns once the broker has taken the command. All waiters get
        :class:`bridgetask.errors.TaskRevoked` at once: a worker that holds the task reports
        nothing until the task's turn comes. A task that is known to run is left alone unless
        ``terminate``.

        :param terminate: whether to kill the process that runs the task, too.
        :param signal: the signal for that; ``TERM`` unless given.
        :raises SendError: the command could not be sent.
        """
        await self._caller.revoke(self.id, terminate=terminate, signal=signal)

    async def forget(self) -> None:
        """Give up on the result, and delete it where it is stored, as Celery's does.

        The results of its parents in a chain, too. All waiters get :class:`ResultUnavailable` at
        once. If this is cancelled, the results may or may not have been deleted.

        :raises BackendError: Redis could not be asked to delete it.
        """
        forgotten = [outcome for node in line_of(self) for outcome in outcomes_of(node)]
        for outcome in forgotten:
            task_id = outcome.task_id
            outcome.forget(ResultUnavailable(f"task {task_id} was forgotten", task_id=task_id))
        store = self._session.store
        if store is not None:
            self._session.check_loop()
            await asyncio.gather(*(store.forget(outcome.task_id) for outcome in forgotten))

    async def get_leaf(self) -> Any:
        """Return the value of the last task of the tree, as Celery's ``get_leaf`` does."""
        leaf = None
        async for _, value in self.collect():
            leaf = value
        return leaf

    def as_list(self) -> list[str]:
        """Return the ids of the task and its parents in a list, as Celery's result does."""
        return [node.id for node in line_of(self)]

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"<AsyncResult:{name}[{self.id}] {self.state}>"
