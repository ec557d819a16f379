"""Whether the broker has the messages of a call, and which outcomes depend on that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..errors import BridgetaskError
from .completion import Completion
from .outcomes import Outcome, PendingResults

__all__ = ["Delivery", "JointDelivery"]

logger: logging.Logger = logging.getLogger(__name__)


class Delivery(Completion):
    """Completes when the broker has a task's message. If it fails, so do the outcomes behind it.

    :param on_published: sends Celery's signals. Called once the broker has the message, before the
        waiters are woken.
    """

    __slots__ = ("_carried", "_name", "_on_published", "_registry")

    def __init__(self, name: str, on_published: Sequence[Callable[[], object]] = ()) -> None:
        super().__init__()
        self._name = name
        self._on_published = on_published
        # By their ids: an outcome lives as long as somebody holds a handle of it.
        self._carried: tuple[str, ...] = ()
        self._registry: PendingResults | None = None

    def carry(self, outcome: Outcome) -> None:
        """Make an outcome depend on this: it fails if the message is not sent."""
        self._carried += (outcome.task_id,)
        self._registry = outcome.registry
        outcome.delivery = self

    def complete(self, error: BaseException | None = None) -> None:
        """Wake those that wait for the send. After a failure, fail the dependent outcomes."""
        if error is None:
            callbacks, self._on_published = self._on_published, ()
            for callback in callbacks:
                _call(callback)
        super().complete(error)
        if not isinstance(error, BridgetaskError):
            return
        held = [
            outcome
            for task_id in self._carried
            if self._registry is not None
            and (outcome := self._registry.get(task_id)) is not None
            and outcome.delivery is self
        ]
        for outcome in held:
            outcome.fail(error)
        if not held and not self.awaited:
            self._log()  # there is no handle left to ask by

    def _log(self) -> None:
        """Log that the task was not sent, unless the program was told."""
        if self.error is not None and not self.raised:
            self.raised = True
            logger.error("Task %s was not sent, and nobody asked: %s", self._name, self.error)

    def __del__(self) -> None:
        self._log()


class JointDelivery(Delivery):
    """Completes when the broker has every message of a group."""

    __slots__ = ("_left", "_lock")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._left = 1  # for close()
        self._lock = threading.Lock()  # members may join in another thread than they are sent in

    def join(self, delivery: Completion) -> None:
        """Wait for one more message."""
        with self._lock:
            self._left += 1
        delivery.then(lambda: self._settled(delivery.error))

    def close(self, error: BaseException | None = None) -> None:
        """Wait for no further messages: all have joined."""
        self._settled(error)

    def _settled(self, error: BaseException | None) -> None:
        with self._lock:
            self._left -= 1
            left = self._left
        if self.done:
            return
        if error is not None:
            self.complete(error)
        elif not left:
            self.complete()

    def _log(self) -> None:
        """Log nothing: the delivery of each message does that."""


def _call(callback: Callable[[], object]) -> None:
    """Call what follows a publish. An error is logged: the message has been sent by then."""
    try:
        callback()
    except Exception:
        logger.exception("%r failed after a message was published", callback)
