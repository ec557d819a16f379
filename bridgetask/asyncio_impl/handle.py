"""What the handles of a task and of a group have in common, and what the package asks of both.

Users see :class:`Handle`. The rest of the package asks more of a handle than users do: that is the
internal protocol, :class:`HandleInternals`. Its members begin with an underscore, so that they do
not show among the names that users see. Only handles call them. Other modules call the functions at
the end of this file.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, Literal, Protocol

from ..core.completion import Completion
from ..core.outcomes import Outcome
from ..errors import ResultTimeout
from ..wire.message import StoreWrite
from .session import Session
from .state import State

__all__ = [
    "Caller",
    "Handle",
    "HandleInternals",
    "OnCancel",
    "abandon",
    "check_result_can_come",
    "delivery_of",
    "hold",
    "is_done",
    "is_settled",
    "line_of",
    "outcomes_of",
    "value_of",
    "when_done",
    "within",
]

OnCancel = Literal["revoke", "terminate"] | None


class Caller(Protocol):
    """What a handle asks of the client that made it.

    A handle holds it. While one is held, the client's session is not closed for being dropped, so
    that ``await Client(app).send_task("t")`` gets its result.
    """

    async def revoke(
        self, task_ids: str | Sequence[str], *, terminate: bool, signal: str | None
    ) -> object:
        """Send the command to revoke tasks. See :meth:`bridgetask.Control.revoke`."""

    def revoke_in_background(self, session: Session, task_id: str, *, terminate: bool) -> None:
        """Revoke a task for a caller that was cancelled, and so can't wait for it."""

    def handle_of_tree(self, session: Session, encoded: Any) -> Handle:
        """Return the handle of a task or a group, from what Celery's ``as_tuple`` gave for it.

        :raises ResultUndecodable: ``encoded`` is something else.
        """

    def record_writes(self, write: Callable[[Any], object]) -> Sequence[StoreWrite]:
        """Return what ``write`` stores with the result backend that it is given."""


class HandleInternals(ABC):
    """The internal protocol of handles.

    A group has *settled*, is *done* or has *outcomes* as its members have; each method of a group
    calls the same method of its members.
    """

    __slots__ = ("__weakref__", "_caller", "_delivery", "_session")

    #: Holds the client's session open, revokes, and makes the handles of children.
    _caller: Caller
    #: The session that the handle belongs to, and with it the event loop.
    _session: Session
    #: Done once the broker has all messages; None for a call that this client did not send.
    _delivery: Completion | None

    @property
    @abstractmethod
    def _settled(self) -> bool:
        """Whether :meth:`_value` can return or raise without waiting."""

    @abstractmethod
    def _value(self, propagate: bool = True) -> Any:
        """Return the value, or raise the error. Called once the handle has settled.

        :param propagate: whether to raise a task's exception, or to return it.
        """

    @abstractmethod
    def _raise_error(self) -> None:
        """Raise the exception of the task, if it raised one, as Celery's ``maybe_throw`` does."""

    @property
    @abstractmethod
    def _done(self) -> bool:
        """Whether there is nothing to wait for any more.

        Unlike a settled handle, a done one may have failed for another reason than the task's own
        error: the message was not sent, or the client was closed.
        """

    @abstractmethod
    def _when_done(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which may not raise, once the handle is done: at once if it is."""

    @abstractmethod
    def _wait(self) -> Awaitable[None]:
        """Return an awaitable that ends once the handle has settled.

        It raises the reason why no result can come, but not the task's own exception.
        """

    @abstractmethod
    def _hold(self, completion: Completion) -> Awaitable[None]:
        """Return an awaitable that ends once ``completion`` is done.

        A result that is still to come holds the coroutine that awaits it, which may have no other
        reference and could be collected: see :meth:`bridgetask.core.outcomes.Outcome.wait`.
        """

    @abstractmethod
    def _check_result_can_come(self) -> None:
        """Raise :class:`ResultUnavailable` where it is known that no result will come."""

    @abstractmethod
    def _expect(self) -> None:
        """Begin to receive the result of a task that this client did not send."""

    @abstractmethod
    def _abandoned(self) -> None:
        """Take note that a waiter was cancelled.

        If it was the last one, and the call said so by ``on_cancel``, the task is revoked.
        """

    @abstractmethod
    def _outcomes(self) -> Iterator[Outcome]:
        """Yield the outcome of each task that the handle stands for."""


class Handle(State, HandleInternals):
    """A task or a group that was called. Awaiting it returns its value."""

    __slots__ = ("parent",)

    def __init__(
        self,
        caller: Caller,
        session: Session,
        parent: Handle | None,
        delivery: Completion | None,
    ) -> None:
        self._caller = caller
        self._session = session
        self._delivery = delivery
        #: The task or group before this one in a chain, a chord's header for its body, or None.
        self.parent: Handle | None = parent

    @property
    @abstractmethod
    def children(self) -> Sequence[Handle] | None:
        """Handles of the tasks and groups below this one, or None while they are not known."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self.get().__await__()

    @abstractmethod
    async def get(self, timeout: float | None = None, propagate: bool = True) -> Any:
        """Wait for the value, for ``timeout`` seconds at most."""

    @abstractmethod
    async def sent(self) -> None:
        """Wait until the broker has confirmed all messages."""

    @abstractmethod
    async def refresh(self) -> object:
        """Ask for news now."""

    @abstractmethod
    async def revoke(self, terminate: bool = False, signal: str | None = None) -> None:
        """Tell all workers not to run what has not begun."""

    @abstractmethod
    async def forget(self) -> None:
        """Give up on the result, and delete it where it is stored."""

    async def collect(self, intermediate: bool = False) -> AsyncIterator[tuple[Handle, Any]]:
        """Yield this handle and those of the tasks that it called, each with its value.

        Breadth first, as ``celery.result.AsyncResult.collect`` does. Raises what :meth:`get`
        raises.

        :param intermediate: see :meth:`iterdeps`.
        """
        async for _, node in _walk(self, intermediate):
            yield node, await node.get()

    def iterdeps(self, intermediate: bool = False) -> AsyncIterator[tuple[Handle | None, Handle]]:
        """Yield the tree of tasks that this one called, as pairs of a parent and its child.

        Breadth first, beginning with ``(None, this one)``. The children of a task are known once
        it has ended: ``celery.result.AsyncResult.iterdeps`` raises ``IncompleteStream`` before
        that, this waits.

        :param intermediate: whether to pass over tasks that have not ended, rather than to wait.
        """
        return _walk(self, intermediate)

    def as_tuple(self) -> Any:
        """Return the ids of this, its parents and its members, as Celery's result does."""
        parent = None if self.parent is None else self.parent.as_tuple()
        return (self.id, parent), None


async def _walk(root: Handle, intermediate: bool) -> AsyncIterator[tuple[Handle | None, Handle]]:
    """Yield pairs of a parent and its child; see :meth:`Handle.iterdeps`."""
    left: deque[tuple[Handle | None, Handle]] = deque([(None, root)])
    while left:
        parent, node = left.popleft()
        yield parent, node
        if not intermediate:
            await node._wait()
        left.extend((node, child) for child in node.children or ())


def line_of(handle: Handle) -> Iterator[Handle]:
    """Yield a handle and its parents, the last one first."""
    node: Handle | None = handle
    while node is not None:
        yield node
        node = node.parent


async def within(
    timeout: float, wait: Callable[[], Awaitable[None]], handle: Handle, late: str
) -> None:
    """Wait for a result for ``timeout`` seconds at most.

    :param wait: returns the awaitable to wait for.
    :param late: the message of the error.
    :raises ResultTimeout: the result did not come in time.
    """
    try:
        async with asyncio.timeout(timeout) as scope:
            await wait()
    except TimeoutError:
        if not scope.expired():  # a task raised it
            raise
        raise ResultTimeout(f"{late} within {timeout} s", task_id=handle.id) from None


# The internal protocol, for modules that are no handles. See HandleInternals.


def is_settled(handle: Handle) -> bool:
    """Tell whether :func:`value_of` can return or raise without waiting."""
    return handle._settled


def value_of(handle: Handle) -> Any:
    """Return the value of a handle that has settled, or raise its error."""
    return handle._value()


def is_done(handle: Handle) -> bool:
    """Tell whether there is nothing to wait for any more."""
    return handle._done


def when_done(handle: Handle, callback: Callable[[], object]) -> None:
    """Call ``callback``, which may not raise, once the handle is done: at once if it is."""
    handle._when_done(callback)


def hold(handle: Handle, completion: Completion) -> Awaitable[None]:
    """Return an awaitable that ends once ``completion`` is done.

    The coroutine that awaits it is not collected while the handle's result is still to come.
    """
    return handle._hold(completion)


def check_result_can_come(handle: Handle) -> None:
    """Raise :class:`ResultUnavailable` where it is known that no result will come."""
    handle._check_result_can_come()


def abandon(handles: Iterable[Handle]) -> None:
    """Take note that nobody will wait for these results; revoke those whose call said so."""
    for handle in handles:
        handle._abandoned()


def delivery_of(handle: Handle) -> Completion | None:
    """Return what is done once the broker has all messages; None for a call made elsewhere."""
    return handle._delivery


def outcomes_of(handle: Handle) -> Iterator[Outcome]:
    """Return the outcomes of all tasks that a handle stands for."""
    return handle._outcomes()
