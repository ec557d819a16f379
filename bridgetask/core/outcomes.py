"""The outcomes of tasks, by task id, and the waiters for each. There is no I/O here."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from ..errors import BackendError, BridgetaskError, ResultUndecodable, Unconfirmed
from ..wire.results import TaskUpdate
from .completion import Completion
from .early import EarlyUpdates
from .limited_log import LimitedLog

__all__ = ["Outcome", "PendingResults", "Updates"]

logger: logging.Logger = logging.getLogger(__name__)

#: How many updates are kept for an ``updates()`` that begins late.
_HISTORY = 256


class Outcome(Completion):
    """What is known of one task: its states so far, and the waiters for its result.

    It completes when the result arrives, and fails with the reason if no result can come. An
    exception that the task raised is a result.

    :param registry: where it can be found by its id.
    """

    __slots__ = (
        "_earlier",
        "_subscribers",
        "children",
        "delivery",
        "followed",
        "registry",
        "stamps",
        "task_id",
        "update",
    )

    def __init__(self, task_id: str, registry: PendingResults) -> None:
        super().__init__()
        self.task_id: str = task_id
        self.registry: PendingResults = registry
        #: The latest state that was reported, or None.
        self.update: TaskUpdate | None = None
        self._earlier: list[TaskUpdate] | None = None
        #: Whether the broker has the task's message; None for a task sent elsewhere.
        self.delivery: Completion | None = None
        #: What the task is stamped with, as far as this client has sent it.
        self.stamps: Mapping[str, Any] = {}
        #: Outcomes of the tasks that this one called, as far as anybody asked for them.
        self.children: dict[str, Outcome] | None = None
        #: What those wait for who want to be told of a parent's failure, too.
        self.followed: Completion | None = None
        self._subscribers: WeakSet[Updates] | None = None

    @property
    def awaited(self) -> bool:
        """Whether a waiter waits for the result."""
        return super().awaited or (self.followed is not None and self.followed.awaited)

    @property
    def history(self) -> list[TaskUpdate]:
        """The latest updates, oldest first."""
        return [] if self.update is None else [*(self._earlier or ()), self.update]

    @property
    def final(self) -> TaskUpdate | None:
        """The final update, or None."""
        update = self.update
        return update if update is not None and update.final else None

    async def wait(self, completion: Completion | None = None) -> None:
        """Return once the result is there, or ``completion`` if that is given.

        :raises BridgetaskError: the reason why there is none.
        """
        awaited = completion or self
        held = self.registry.held
        while not awaited.done:  # it may be opened again before we get our turn
            waiter = awaited.enter()
            # asyncio has only weak references to its tasks. A waiting task that the program does
            # not hold, as in a dropped Deferred with callbacks, would be collected with this.
            held[self] = held.get(self, 0) + 1
            try:
                await waiter
            finally:
                awaited.leave(waiter)
                held[self] -= 1
                if not held[self]:
                    del held[self]
        if awaited.error is not None:
            if self.delivery is not None and self.delivery.error is awaited.error:
                self.delivery.raised = True
            awaited.check()

    def apply(self, update: TaskUpdate) -> None:
        """Take an update. Whatever follows a final one is a repetition, and ignored."""
        if self.final is not None:
            return
        if self.done and not isinstance(self.error, (BackendError, Unconfirmed)):
            return  # settled here: forgotten, revoked, or closed
        if self.update is not None:
            if self._earlier is None:
                self._earlier = []
            self._earlier.append(self.update)
            del self._earlier[: 1 - _HISTORY]
        self.update = update
        delivery = self.delivery
        # A worker has it, whatever became of the confirm; unless this is what Redis kept of a task
        # that had the same id.
        if delivery is not None and delivery.left and (not delivery.done or delivery.error):
            delivery.complete()
        for subscriber in self._subscribers or ():
            subscriber.push(update)
        if update.final:
            self.complete()

    def fail(self, error: BridgetaskError) -> None:
        """Fail, unless the result has arrived or this has failed before."""
        if self.done:
            return
        self.complete(error)
        for subscriber in self._subscribers or ():
            subscriber.push(None)

    def forget(self, error: BridgetaskError) -> None:
        """Drop what is known. Waiters, now and later, get the error."""
        self.update = self._earlier = None
        self.fail(error)
        self.complete(error)  # in place of what it was before

    def reopen(self) -> None:
        """Wait again for a result that was given up on because its backend could not be asked."""
        if isinstance(self.error, BackendError):
            super().reopen()

    def subscribe(self) -> Updates:
        """Return an iterator over the updates, those that are known already included."""
        if self._subscribers is None:
            self._subscribers = WeakSet()
        updates = Updates(self)
        self._subscribers.add(updates)
        return updates


class Updates(AsyncIterator[TaskUpdate]):
    """Every state that the worker reports, in order, ending with the final one.

    Iterating raises what makes a final one impossible: :class:`bridgetask.errors.SendError`,
    :class:`bridgetask.errors.ClientClosed` and so on. Cancelling an iteration harms nothing, and
    it can be continued.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._queue: deque[TaskUpdate | None] = deque(outcome.history)
        self._wakeup: Completion | None = None
        self._ended = False
        if outcome.done and outcome.final is None:
            self._queue.append(None)

    def push(self, update: TaskUpdate | None) -> None:
        """Take an update, or None where no more can come."""
        self._queue.append(update)
        if self._wakeup is not None:
            self._wakeup.complete()

    async def __anext__(self) -> TaskUpdate:
        if self._ended:
            raise StopAsyncIteration
        while not self._queue:
            self._wakeup = Completion()
            await self._outcome.wait(self._wakeup)
        update = self._queue.popleft()
        self._ended = update is None or update.final
        if update is None:
            await self._outcome.wait()
            raise StopAsyncIteration
        return update


class PendingResults:
    """The outcomes that the program holds a handle of, or waits for."""

    def __init__(self) -> None:
        self._outcomes: WeakValueDictionary[str, Outcome] = WeakValueDictionary()
        #: How many wait for an outcome. This holds it, and with it those who wait.
        self.held: dict[Outcome, int] = {}
        #: Whether linked tasks may report. Up to Celery 5.5 they do not say who called them.
        self.expects_links: bool = False
        #: Updates of tasks that other tasks called, and that nobody has asked for yet.
        self._early = EarlyUpdates()
        #: Held while an update is kept for nobody, or an outcome is made. With Twisted, the
        #: reactor's thread does the latter: the update must reach the outcome one way or the other.
        self._registering = threading.RLock()
        self._dropped = LimitedLog(logger)

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[Outcome]:
        # With Twisted, the reactor's thread registers others meanwhile. Copying the references is
        # one call of C; iterating over the values is not.
        references = self._outcomes.valuerefs()
        return iter([outcome for each in references if (outcome := each()) is not None])

    @property
    def unfinished(self) -> int:
        """How many results are still to come."""
        return sum(not outcome.done for outcome in self)

    @property
    def awaited(self) -> int:
        """How many results are still to come, and waited for at this moment."""
        return sum(outcome.awaited for outcome in self)

    def register(self, task_id: str) -> Outcome:
        """Return the outcome of a task, the same one for the same id."""
        outcome = self._outcomes.get(task_id)
        if outcome is not None:
            return outcome
        with self._registering:
            outcome = self._outcomes.get(task_id)  # another thread may have made it meanwhile
            if outcome is None:
                outcome = Outcome(task_id, self)
                for update in self._early.take(task_id):
                    outcome.apply(update)
                self._outcomes[task_id] = outcome  # last: later updates follow those
        return outcome

    def begin(self, task_id: str) -> Outcome:
        """Return the outcome of a task that is about to be sent.

        That of an earlier call under the same id is not it, once it is settled: a task whose send
        failed may be sent again.
        """
        outcome = self._outcomes.get(task_id)
        if outcome is not None and outcome.done:
            del self._outcomes[task_id]
        return self.register(task_id)

    def get(self, task_id: str) -> Outcome | None:
        """Return the outcome of a task if somebody holds a handle of it."""
        return self._outcomes.get(task_id)

    def deliver(self, update: TaskUpdate, size: int = 0) -> None:
        """Deliver an update to the outcome of its task.

        :param size: bytes that it came in.
        """
        outcome = self._outcomes.get(update.task_id)
        if outcome is None and (update.parent_id is not None or self.expects_links):
            with self._registering:
                outcome = self._outcomes.get(update.task_id)
                if outcome is None:
                    self._early.keep(update, size)
                    return
        if outcome is None:
            logger.debug("Nobody waits for the %.40r of task %.100r", update.state, update.task_id)
        else:
            outcome.apply(update)

    def deliver_undecodable(self, error: ResultUndecodable) -> None:
        """Fail the result that can't be decoded, and no other."""
        outcome = self._outcomes.get(error.task_id) if error.task_id else None
        if outcome is None:
            self._dropped.warning("Dropped a message for task %.300r: %s", error.task_id, error)
            return
        outcome.fail(error)

    def fail_all(self, error: BridgetaskError) -> None:
        """Give up on every result that is still to come."""
        for outcome in self:
            outcome.fail(error)
