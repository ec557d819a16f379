"""A task that was called, as a Deferred of its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from .. import errors
from ..asyncio_impl.group import GroupResult
from ..asyncio_impl.handle import Handle
from ..asyncio_impl.result import AsyncResult
from .client_internals import is_settled, value_of
from .deferreds import QuietDeferred, for_each
from .event_loops import EventLoop

__all__ = ["DeferredTask", "TaskRevoked"]

#: Methods of the handle that do I/O, and return a Deferred here.
_AWAITABLE = frozenset(
    ["delete", "exists", "forget", "get", "get_leaf", "join", "refresh", "revoke", "save", "sent"]
)


class TaskRevoked(errors.TaskRevoked, CancelledError):
    """The task was revoked: bridgetask's error, and Twisted's ``CancelledError``."""


class DeferredTask(QuietDeferred[Any]):
    """Fires with a task's value, or with its exception. A Deferred like any other.

    It also has what the task's handle has. ``task_id``, ``state``, ``ready()`` and others do no
    I/O. ``get()``, ``sent()``, ``revoke()``, ``forget()``, ``refresh()``, ``collect()``,
    ``iterdeps()`` and ``updates(callback)`` return Deferreds. The handle itself, a
    :class:`bridgetask.AsyncResult` or :class:`bridgetask.GroupResult`, is :attr:`task`. Only
    ``result`` is the Deferred's own: what it fired with, and missing before that. The handle's is
    ``info``.

    Cancelling it ends the waiting, and so does a timeout by ``addTimeout``. The task runs on,
    unless ``on_cancel`` says otherwise. A revoked task fires with ``twisted_compat.TaskRevoked``,
    which is both :class:`bridgetask.errors.TaskRevoked` and
    ``twisted.internet.defer.CancelledError``.

    Some stand for a task that the program did not call here: :attr:`parent`, those in
    :attr:`results` and :attr:`children`, and what :meth:`TwistedCelery.result` returns. They log an
    unhandled error only if they are used as Deferreds. Many are merely read, for their ids.

    Made by :class:`TwistedCelery` and :class:`CeleryClient`, never directly.
    """

    def __init__(self, handle: Handle, event_loop: EventLoop, *, quiet: bool = False) -> None:
        super().__init__(lambda _: stop_waiting())
        #: The handle, as asyncio code uses it.
        self.task: Handle = handle
        self._event_loop = event_loop
        self._quiet = quiet
        if is_settled(handle):
            self._fire(_outcome_of(handle))
        else:
            stop_waiting = event_loop.run(handle.get(), self._fire)

    def _fire(self, outcome: Any) -> None:
        if self.called:
            return  # cancelled
        if isinstance(outcome, Failure) and isinstance(outcome.value, errors.TaskRevoked):
            error = outcome.value
            outcome = Failure(TaskRevoked(*error.args, task_id=error.task_id))
        used = self._used
        self.callback(outcome)
        if self._quiet and not used:
            self._keep_quiet()

    def updates(self, callback: Callable[[Any], object]) -> Deferred[None]:
        """Call ``callback`` with each :class:`bridgetask.TaskUpdate`, in order.

        :param callback: called in the reactor's thread. What it raises ends the calls.
        :returns: a Deferred that fires after the final update, or with the reason why none can
            come. Cancelling it ends the calls.
        :raises TypeError: this is a group.
        """
        if not isinstance(self.task, AsyncResult):
            raise TypeError("a group reports no states of its own: ask its members")
        return for_each(self.task.updates, callback, self._event_loop)

    def as_completed(self, callback: Callable[[DeferredTask], object]) -> Deferred[None]:
        """Call ``callback`` with each member of a group as it ends, in the reactor's thread.

        :param callback: called with the member. What it raises ends the calls.
        :returns: a Deferred that fires after the last member, or with the reason why a result
            can't come. Cancelling it ends the calls.
        :raises TypeError: this is no group.
        """
        if not isinstance(self.task, GroupResult):
            raise TypeError("only a group has members")
        return for_each(
            self.task.as_completed, lambda one: callback(_read_off(self, one)), self._event_loop
        )

    def collect(self, intermediate: bool = False) -> Deferred[list[tuple[DeferredTask, Any]]]:
        """Wait for this task and those that it called.

        :returns: a Deferred of a list of pairs: a task, and its value.

        See :meth:`bridgetask.AsyncResult.collect`.
        """

        async def collect() -> list[tuple[Handle, Any]]:
            return [pair async for pair in self.task.collect(intermediate)]

        return self._event_loop.deferred(collect()).addCallback(
            lambda pairs: [(_read_off(self, handle), value) for handle, value in pairs]
        )

    def iterdeps(
        self, intermediate: bool = False
    ) -> Deferred[list[tuple[DeferredTask | None, DeferredTask]]]:
        """Wait for this task and those that it called.

        :returns: a Deferred of a list of pairs: a parent, and a task that it called.

        See :meth:`bridgetask.AsyncResult.iterdeps`.
        """

        async def walk() -> list[tuple[Handle | None, Handle]]:
            return [pair async for pair in self.task.iterdeps(intermediate)]

        def deferred(
            pairs: list[tuple[Handle | None, Handle]],
        ) -> list[tuple[DeferredTask | None, DeferredTask]]:
            tasks = {id(node): _read_off(self, node) for _, node in pairs}
            return [(tasks.get(id(parent)), tasks[id(node)]) for parent, node in pairs]

        return self._event_loop.deferred(walk()).addCallback(deferred)

    @property
    def parent(self) -> DeferredTask | None:
        """The task before this one in a chain, or None."""
        parent = self.task.parent
        return None if parent is None else _read_off(self, parent)

    @property
    def results(self) -> list[DeferredTask]:
        """The members of a group, in order."""
        if not isinstance(self.task, GroupResult):
            raise AttributeError("results")
        return [_read_off(self, member) for member in self.task.results]

    @property
    def children(self) -> list[DeferredTask] | None:
        """The tasks that this one called, or None while that is not known."""
        children = self.task.children
        return None if children is None else [_read_off(self, child) for child in children]

    def __getattr__(self, name: str) -> Any:
        # Twisted takes a Deferred with a ``result`` for one that has fired: there is none before.
        if name.startswith("_") or name in {"task", "result"}:
            raise AttributeError(name)
        attribute = getattr(self.task, name)
        if name not in _AWAITABLE:
            return attribute

        def deferred(*args: Any, **kwargs: Any) -> Deferred[Any]:
            return self._event_loop.deferred(attribute(*args, **kwargs))

        return deferred

    def __str__(self) -> str:
        return f"<DeferredTask of {self.task!r}>"

    def __repr__(self) -> str:
        return str(self)


def _outcome_of(handle: Handle) -> Any:
    """Return the value of a settled handle, or a Failure of its exception."""
    try:
        return value_of(handle)
    except BaseException as error:
        # The handle keeps the error, and the error would keep the frames in its traceback.
        return Failure(error.with_traceback(None))


def _read_off(origin: DeferredTask, handle: Handle) -> DeferredTask:
    """Return the DeferredTask of a handle that the one of ``origin`` led to."""
    if handle is origin.task:
        return origin
    return DeferredTask(handle, origin._event_loop, quiet=True)
