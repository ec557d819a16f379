"""The tape: keeps what Celery's code publishes and stores, which is sent and stored later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Self

from .message import OutgoingMessage, StoreWrite

__all__ = ["Recording", "Tape"]


class Recording:
    """The messages and writes that a tape got while this was open, in their order."""

    __slots__ = ("_current", "_token", "messages", "writes")

    def __init__(self, current: ContextVar[Recording]) -> None:
        self.messages: list[OutgoingMessage] = []
        #: What was to be stored since the last message.
        self.writes: list[StoreWrite] = []
        self._current = current

    def __enter__(self) -> Self:
        self._token = self._current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._current.reset(self._token)
        if self.messages and self.writes:  # what is stored last goes before the last message
            self.messages[-1].requires += tuple(self.writes)


class Tape:
    """Adds what Celery's code publishes and stores to the recording that is open.

    Each thread and each asyncio task has recordings of its own. Where they are nested, the inner
    one gets all until it is closed.
    """

    def __init__(self) -> None:
        self._current: ContextVar[Recording] = ContextVar("recording")
        self._mandatory: ContextVar[bool] = ContextVar("mandatory", default=True)

    def recording(self) -> Recording:
        """Return a context manager that opens a recording."""
        return Recording(self._current)

    def add(self, message: OutgoingMessage) -> None:
        """Keep a message that was published."""
        recording = self._current.get()
        message.mandatory = self._mandatory.get()
        if recording.writes:
            message.requires = tuple(recording.writes)
            recording.writes.clear()
        recording.messages.append(message)

    def add_write(self, write: StoreWrite) -> None:
        """Keep a write, which must be done before the next message is sent."""
        self._current.get().writes.append(write)

    def record_task(self, task_id: str, send: Callable[[], object]) -> None:
        """Run ``send``, which publishes a task's message, in a context of its own.

        The message's ``on_published`` run in that context as well: OpenTelemetry enters a span in
        ``before_task_publish``, and leaves it in ``after_task_publish``. The caller and other
        messages must not be in that span meanwhile.
        """
        messages = self._current.get().messages
        first = len(messages)
        context = copy_context()
        context.run(send)
        message = messages[first]  # an event may follow
        message.task_id = task_id
        message.on_published = [partial(context.run, each) for each in message.on_published]

    def on_published(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called once the message that was added last is published."""
        self._current.get().messages[-1].on_published.append(callback)

    @contextmanager
    def not_mandatory(self) -> Iterator[None]:
        """Let the messages that are added inside be dropped if no queue takes them."""
        token = self._mandatory.set(False)
        try:
            yield
        finally:
            self._mandatory.reset(token)
