"""How the handle of a task waits: the internal protocol of handles, for a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any
from weakref import ref

from ..core.completion import Completion
from ..core.outcomes import Outcome
from ..errors import ResultUnavailable
from .handle import Caller, Handle, OnCancel, line_of
from .session import Session
from .state import TaskState

__all__ = ["TaskHandle", "wait_or_parent_fails"]


class TaskHandle(TaskState, Handle):
    """The handle of a task, with all but the methods that users call to wait.

    :param outcome: what is known of the task, which other handles of the same id share.
    :param name: the task's name, if it is known.
    :param parent: what comes before the task in a chain.
    :param ignored: whether the worker sends no result.
    :param delivery: done once the broker has the message; None for a call made elsewhere.
    :param no_result: the reason why no result can come here, or None.
    :param on_cancel: what cancelling the last waiter does to the task.
    """

    __slots__ = ("_follows", "_name", "_no_result", "_on_cancel", "_outcome", "ignored")

    def __init__(
        self,
        caller: Caller,
        session: Session,
        outcome: Outcome,
        *,
        name: str | None = None,
        parent: Handle | None = None,
        ignored: bool = False,
        delivery: Completion | None = None,
        no_result: str | None = None,
        on_cancel: OnCancel = None,
    ) -> None:
        super().__init__(caller, session, parent, delivery)
        self._outcome = outcome
        self._name = name
        self._no_result = no_result
        self._on_cancel = on_cancel
        #: The completion that this handle's parents complete where one of them fails.
        self._follows: Completion | None = None
        #: Whether the worker sends no result; awaiting gives None once the broker has the message.
        self.ignored: bool = ignored

    @property
    def _settled(self) -> bool:
        if self.ignored:
            return self._delivery is not None and self._delivery.done and not self._delivery.error
        return self._outcome.final is not None

    def _value(self, propagate: bool = True) -> Any:
        if self.ignored:
            return None
        if propagate:
            if self.parent is not None:
                _raise_parent_error(self)
            self._raise_error()
        final = self._outcome.final
        assert final is not None
        return final.result

    def _raise_error(self) -> None:
        final = self._outcome.final
        if final is not None and final.error is not None:
            # It may be raised many times. It may not grow by that, nor hold the frames it passed.
            raise final.error.with_traceback(final.raised_at)

    @property
    def _done(self) -> bool:
        if self.ignored:
            return self._delivery is None or self._delivery.done
        return self._outcome.done

    def _when_done(self, callback: Callable[[], object]) -> None:
        if self.ignored and self._delivery is not None:
            self._delivery.then(callback)
        else:
            self._outcome.then(callback)

    def _wait(self) -> Awaitable[None]:
        if self.ignored:
            return self.sent()
        _check_waiting_makes_sense(self, self._session)
        if self._session.store is None:
            return self._outcome.wait()
        return _wait_stored(self._session, self._outcome)

    def _hold(self, completion: Completion) -> Awaitable[None]:
        return self._outcome.wait(completion)

    def _check_result_can_come(self) -> None:
        if self._no_result is not None and not self._done and self._outcome.update is None:
            raise ResultUnavailable(
                f"task {self.id} has no result here: {self._no_result}", task_id=self.id
            )

    def _expect(self) -> None:
        if self._outcome.delivery is None and not self._outcome.done:
            self._session.expect((self.id,))

    def _abandoned(self) -> None:
        outcome = self._outcome
        if self._on_cancel is not None and not outcome.done and not outcome.awaited:
            terminate = self._on_cancel == "terminate"
            self._caller.revoke_in_background(self._session, self.id, terminate=terminate)

    def _outcomes(self) -> Iterator[Outcome]:
        yield self._outcome


def _check_waiting_makes_sense(handle: TaskHandle, session: Session) -> None:
    if not handle._outcome.done:
        handle._check_result_can_come()
        session.check_loop()


async def _wait_stored(session: Session, outcome: Outcome) -> None:
    await session.watch(outcome)
    await outcome.wait()


async def wait_or_parent_fails(handle: TaskHandle, session: Session) -> None:
    """Wait until a task in a chain has ended, or one of its parents has failed.

    A worker does not always report the tasks that follow a failed one.

    :raises ResultUnavailable: no result can come.
    :raises BackendError: the result backend could not be asked.
    """
    _check_waiting_makes_sense(handle, session)
    outcome = handle._outcome
    await session.watch(outcome)
    while not _has_ended(handle):  # the outcome may be opened again before this goes on
        if outcome.followed is None or outcome.followed.done:
            outcome.followed = Completion()
        # Another handle of the same task may have asked its parents, and be gone by then.
        if handle._follows is not outcome.followed:
            handle._follows = outcome.followed
            look = partial(_look, ref(handle))
            for node in line_of(handle):
                node._when_done(look)
        await outcome.wait(outcome.followed)
    if outcome.done:
        await outcome.wait()


def _look(handle: ref[TaskHandle]) -> None:
    """Wake those that wait for a task or its parents, if one of these has news for them."""
    this = handle()
    if this is not None and this._outcome.followed is not None and _has_ended(this):
        this._outcome.followed.complete()


def _has_ended(handle: TaskHandle) -> bool:
    """Tell whether there is a result, or a reason why there is none, or a parent has failed."""
    try:
        _raise_parent_error(handle)
    except Exception:
        return True
    return handle._outcome.done


def _raise_parent_error(handle: TaskHandle) -> None:
    """Raise what a parent raised, the first one first, as ``_maybe_reraise_parent_error``."""
    _, *parents = line_of(handle)
    for parent in reversed(parents):
        parent._raise_error()
