"""The handle of a task: what is known of it, and how to wait for more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast
from weakref import ref

from ..core.completion import Completion
from ..core.outcomes import Outcome, Updates
from ..errors import ResultTimeout, ResultUnavailable, ResultUndecodable
from ..wire.results import TaskUpdate
from .state import TaskState

if TYPE_CHECKING:
    from .client import Client
    from .group import GroupResult
    from .session import Session

__all__ = ["AnyResult", "AsyncResult", "OnCancel", "walk"]

R = TypeVar("R")

OnCancel = Literal["revoke", "terminate"] | None

#: A handle: of a task, or of a group.
AnyResult: TypeAlias = "AsyncResult[Any] | GroupResult"


class AsyncResult(TaskState, Generic[R]):
    """A task that was sent. Awaiting it returns the task's value, or raises its exception.

    One rule tells what does I/O: what is not awaited does none, and answers with what is known.
    Any number of tasks may wait. Cancelling one that waits touches neither the task nor another
    one that waits, unless ``on_cancel`` was given and it is the last one.

    Made by :meth:`bridgetask.Client.send_task` and its kin, never directly. Follows
    ``celery.result.AsyncResult``.
    """

    __slots__ = (
        "__weakref__",
        "_client",
        "_delivery",
        "_follows",
        "_no_result",
        "_on_cancel",
        "_session",
        "ignored",
        "parent",
    )

    def __init__(
        self,
        client: Client,
        session: Session,
        outcome: Outcome,
        *,
        name: str | None = None,
        parent: AnyResult | None = None,
        ignored: bool = False,
        delivery: Completion | None = None,
        no_result: str | None = None,
        on_cancel: OnCancel = None,
    ) -> None:
        super().__init__(outcome, name)
        self._client = client
        self._session = session
        self._delivery = delivery
        self._no_result = no_result
        self._on_cancel = on_cancel
        #: What is completed for this handle where a parent fails.
        self._follows: Completion | None = None
        #: What comes before this task in a chain, or a chord's header, or None.
        self.parent: AnyResult | None = parent
        #: Whether the worker sends no result; awaiting gives None once the broker has the message.
        self.ignored: bool = ignored

    @property
    def children(self) -> list[AnyResult] | None:
        """Handles of the tasks and groups that this one called, or None while that is not known.

        By ``rpc://`` only the results of linked tasks come to this client.

        :raises ResultUndecodable: the worker sent something else than children.
        """
        final = self._outcome.final
        if final is None:
            return None
        return [self._child(each) for each in final.children]

    # What waits.

    def __await__(self) -> Generator[Any, None, R]:
        return self.get().__await__()

    async def get(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Wait for the result.

        Cancelling this ends the waiting. The task runs on, unless ``on_cancel`` says otherwise.

        :param timeout: seconds to wait at most, sending included. 0 asks what is there already.
        :param propagate: whether to raise the task's exception, or to return it.
        :returns: the task's return value; None where the task's result is ignored.
        :raises ResultTimeout: no result came in time. The task is untouched.
        :raises ResultUnavailable: no result can come.
        :raises ResultUndecodable: there is one that can't be read.
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
        wait = self._wait_or_parent_fails if follows else self._wait
        try:
            if timeout is None:
                await wait()
            else:
                await self._in_time(timeout, wait)
        except asyncio.CancelledError:
            self._abandoned()
            raise
        return self._value(propagate)

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

        It begins with those that are known already, and ends with the final one. For a task to
        report ``STARTED``, Celery's ``task_track_started`` must be on.

        .. code-block:: python

            async for update in call.updates():
                print(update.state, update.result)

        :raises ResultUnavailable: nothing can come.
        """
        if not self._outcome.done:
            self._check_result_can_come()
            if self._outcome.delivery is None:
                self._expect()
        return self._outcome.subscribe()

    async def refresh(self) -> TaskUpdate | None:
        """Learn of news now, and return the latest update.

        From Redis, what is stored is read. By ``rpc://`` workers push every state; there is
        nothing to ask for, but a lost connection is opened again.

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
        :raises ResultUnavailable: results are not stored, and none has come here.
        """
        if self._session.store is not None:
            self._session.check_loop()
            return await self._session.store.exists(self.id)
        if self._outcome.update is None:
            raise ResultUnavailable("only results in Redis can be asked for", task_id=self.id)
        return True

    async def revoke(self, terminate: bool = False, signal: str | None = None) -> None:
        """Tell all workers not to run the task, as ``AsyncResult.revoke`` of Celery does.

        Returns once the broker has taken the command. Whoever waits gets
        :class:`bridgetask.errors.TaskRevoked` at once: a worker that holds the task says nothing
        until its turn comes. A task that is known to run is left alone unless ``terminate``.

        :param terminate: whether to kill the process that runs the task, too.
        :param signal: the signal for that; ``TERM`` unless given.
        :raises SendError: the command could not be sent.
        """
        await self._client.control.revoke(self.id, terminate=terminate, signal=signal)

    async def forget(self) -> None:
        """Stop caring about the result, and delete it where it is stored, as Celery's does.

        So are those of its parents in a chain. Whoever waits gets :class:`ResultUnavailable`, at
        once. Cancelling this leaves it open whether they are deleted.

        :raises BackendError: Redis could not be asked to delete it.
        """
        forgotten = [outcome for node in self._line() for outcome in node._outcomes()]
        for outcome in forgotten:
            task_id = outcome.task_id
            outcome.forget(ResultUnavailable(f"task {task_id} was forgotten", task_id=task_id))
        store = self._session.store
        if store is not None:
            self._session.check_loop()
            await asyncio.gather(*(store.forget(outcome.task_id) for outcome in forgotten))

    async def collect(self, intermediate: bool = False) -> AsyncIterator[tuple[AnyResult, Any]]:
        """Yield this result and those of the tasks that it called, each with its value.

        Breadth first, as ``celery.result.AsyncResult.collect`` does; raises what ``get`` raises.

        :param intermediate: see :meth:`iterdeps`.
        """
        async for _, node in walk(self, intermediate):
            yield node, await node.get()

    def iterdeps(
        self, intermediate: bool = False
    ) -> AsyncIterator[tuple[AnyResult | None, AnyResult]]:
        """Yield the tree of tasks that this one called, as pairs of a parent and its child.

        Breadth first, beginning with ``(None, this one)``. Waits for each task to end, since only
        then its children are known, where ``celery.result.AsyncResult.iterdeps`` raises
        ``IncompleteStream``.

        :param intermediate: whether to pass over what has not ended rather than wait for it.
        """
        return walk(self, intermediate)

    async def get_leaf(self) -> Any:
        """Return the value of the last task of the tree, as Celery's ``get_leaf`` does."""
        value = None
        async for _, node in walk(self):
            value = await node.get()
        return value

    def as_tuple(self) -> Any:
        """Return the ids of the task and its parents, as Celery's result does."""
        parent = None if self.parent is None else self.parent.as_tuple()
        return (self.id, parent), None

    def as_list(self) -> list[str]:
        """Return the ids of the task and its parents in a list, as Celery's result does."""
        return [node.id for node in self._line()]

    # Within.

    def _wait(self) -> Awaitable[None]:
        """Return what is to be awaited before :meth:`_value` can be had."""
        if self.ignored:
            return self.sent()
        self._check_waiting_makes_sense()
        return self._outcome.wait() if self._session.store is None else self._wait_stored()

    def _check_waiting_makes_sense(self) -> None:
        if not self._outcome.done:
            self._check_result_can_come()
            self._session.check_loop()

    async def _wait_stored(self) -> None:
        await self._session.watch(self._outcome)
        await self._outcome.wait()

    async def _wait_or_parent_fails(self) -> None:
        """Wait until :meth:`_value` can be had, or raises what a parent did.

        What follows a failed task is not always told of it.
        """
        outcome = self._outcome
        self._check_waiting_makes_sense()
        await self._session.watch(outcome)
        while not self._has_ended:  # it may be opened again before we get our turn
            if outcome.followed is None or outcome.followed.done:
                outcome.followed = Completion()
            if self._follows is not outcome.followed:  # another handle may be gone by then
                self._follows = outcome.followed
                look = partial(_look, ref(self))
                for node in self._line():
                    node._when_done(look)
            await outcome.wait(outcome.followed)
        if outcome.done:
            await outcome.wait()

    @property
    def _has_ended(self) -> bool:
        """Whether there is a result, or a reason why there is none, or a parent has failed."""
        try:
            self._raise_parent_error()
        except Exception:
            return True
        return self._outcome.done

    async def _in_time(self, timeout: float, wait: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(timeout) as scope:
                await wait()
        except TimeoutError:
            if not scope.expired():  # it is the task's own
                raise
            raise ResultTimeout(
                f"task {self.id} gave no result within {timeout} s", task_id=self.id
            ) from None

    @property
    def _settled(self) -> bool:
        """Whether :meth:`_value` can be had, or raised, without waiting."""
        if self.ignored:
            return self._delivery is not None and self._delivery.done and not self._delivery.error
        return self._outcome.final is not None

    def _value(self, propagate: bool = True) -> R:
        """Return or raise what is there, once it is."""
        if self.ignored:
            return cast("R", None)
        if propagate:
            if self.parent is not None:
                self._raise_parent_error()
            self._raise_error()
        final = self._outcome.final
        assert final is not None
        return cast("R", final.result)

    def _check_result_can_come(self) -> None:
        if self._no_result is not None and not self._done and self._outcome.update is None:
            raise ResultUnavailable(
                f"task {self.id} has no result here: {self._no_result}", task_id=self.id
            )

    def _expect(self) -> None:
        """Get ready for what a task reports that was sent elsewhere."""
        if self._outcome.delivery is None and not self._outcome.done:
            self._session.expect((self.id,))

    def _raise_parent_error(self) -> None:
        """Raise what a parent raised, the first one first, as ``_maybe_reraise_parent_error``."""
        _, *parents = self._line()
        for parent in reversed(parents):
            parent._raise_error()

    def _line(self) -> Iterator[AnyResult]:
        """Yield this one and its parents, the last one first."""
        node: AnyResult | None = self
        while node is not None:
            yield node
            node = node.parent

    def _raise_error(self) -> None:
        """Raise what the task raised, if it did."""
        final = self._outcome.final
        if final is not None and final.error is not None:
            # It may be raised many times. It may not grow by that, nor hold the frames it passed.
            raise final.error.with_traceback(final.raised_at)

    @property
    def _done(self) -> bool:
        """Whether there is nothing to wait for any more."""
        if self.ignored:
            return self._delivery is None or self._delivery.done
        return self._outcome.done

    def _when_done(self, callback: Callable[[], object]) -> None:
        """Call back once there is nothing to wait for any more."""
        if self.ignored and self._delivery is not None:
            self._delivery.then(callback)
        else:
            self._outcome.then(callback)

    async def _hold(self, completion: Completion) -> None:
        """Wait for something, and see to it that whoever waits is not collected meanwhile."""
        await self._outcome.wait(completion)

    def _abandoned(self) -> None:
        """Revoke the task where the last one who waited was cancelled, if that was asked for."""
        outcome = self._outcome
        if self._on_cancel is not None and not outcome.done and not outcome.awaited:
            self._client._revoke_in_background(self.id, terminate=self._on_cancel == "terminate")

    def _child(self, encoded: Any) -> AnyResult:
        """Make the handle of a child, which lives as long as this one."""
        try:
            child = self._client._handle_of_tree(self._session, encoded)
        except RecursionError as error:
            raise ResultUndecodable(
                "the children are nested too deeply", task_id=self.id
            ) from error
        if self._outcome.children is None:
            self._outcome.children = {}
        for each in child._outcomes():
            self._outcome.children[each.task_id] = each
        return child

    def _outcomes(self) -> Iterator[Outcome]:
        yield self._outcome

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"<AsyncResult:{name}[{self.id}] {self.state}>"


def _look(handle: ref[AsyncResult[Any]]) -> None:
    """Tell those who follow a task's parents, if there is anything to tell."""
    this = handle()
    if this is not None and this._outcome.followed is not None and this._has_ended:
        this._outcome.followed.complete()


async def walk(
    root: AnyResult, intermediate: bool = False
) -> AsyncIterator[tuple[AnyResult | None, AnyResult]]:
    """Yield pairs of a parent and its child; see :meth:`AsyncResult.iterdeps`."""
    left: deque[tuple[AnyResult | None, AnyResult]] = deque([(None, root)])
    while left:
        parent, node = left.popleft()
        yield parent, node
        if not intermediate:
            await node._wait()
        left.extend((node, child) for child in node.children or ())
