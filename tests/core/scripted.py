"""What an outbox works with, done as a test says: a publisher, a receiver, and a store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from bridgetask.core.publishing import ClosedOver, ConnectionLost, OnAnswer, Publisher, Sending
from bridgetask.core.receiving import Receiver, ResultStore
from bridgetask.errors import BridgetaskError
from bridgetask.wire.message import Declaration, OutgoingMessage, StoreWrite

__all__ = ["Operation", "ScriptedPublisher", "ScriptedReceiver", "ScriptedStore"]


class Operation:
    """Something to wait for. It ends well, and at once, unless a test says otherwise."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log
        self._errors: deque[BaseException | None] = deque()
        self._held: asyncio.Event | None = None
        #: The loop's times at which it began.
        self.began: list[float] = []
        #: How long the log was when one began that has ended well.
        self.served = -1
        #: Called each time, before it ends.
        self.meanwhile: Callable[[], object] = lambda: None

    def fail(self, *errors: BaseException | None) -> None:
        """Make the next calls fail, each with the next of these errors; None is a success."""
        self._errors.extend(errors)

    def hold(self) -> None:
        """Let nothing end before :meth:`release`."""
        self._held = self._held or asyncio.Event()

    def release(self) -> None:
        """Let all end that was held, and what comes at once."""
        if self._held is not None:
            self._held.set()
            self._held = None

    def forgive(self) -> None:
        """Let the next calls end well whatever :meth:`fail` said."""
        self._errors.clear()

    async def run(self, what: str = "") -> None:
        begun = len(self._log)
        self._log.append(f"{self._name} {what}".rstrip())
        self.began.append(asyncio.get_running_loop().time())
        error = self._errors.popleft() if self._errors else None
        if self._held is not None:
            try:
                await self._held.wait()
            except asyncio.CancelledError:
                self._log.append(f"{self._name} is cancelled")
                raise
        self.meanwhile()
        if error is not None:
            raise error
        self.served = begun


class ScriptedPublisher(Publisher):
    """Takes messages, and tells of them what a test says, when it says so.

    :param log: what is asked of it is noted here, in order. Messages are noted by their task ids.
    """

    def __init__(self, log: list[str]) -> None:
        self.per_turn = 8
        self.large = 1_000
        self.alone = 10_000
        self.log = log
        #: What :meth:`publish` raises, by task id.
        self.unpublishable: dict[str | None, Exception] = {}
        #: Called with each message that is published, before it is.
        self.on_publish: Callable[[Sending], object] = lambda _: None
        #: What was wrong with messages that were published.
        self.broken: list[AssertionError] = []
        #: Whether it confirms each message while it takes it.
        self.confirms_at_once = False
        #: What was published and not answered, in order.
        self.on_their_way: list[Sending] = []
        #: How many messages were published, and neither flushed nor drained.
        self.unwritten = 0
        self.forgotten: list[str | None] = []
        self.connecting = Operation("connect", log)
        self.preparing = Operation("prepare", log)
        self.draining = Operation("drain", log)
        self.closing = Operation("close", log)
        self.open = False
        self.why_blocked: str | None = None
        self._declared: set[tuple[Declaration, ...]] = set()
        self.is_draining = False
        self._on_answer: OnAnswer

    # What a test does.

    def opened(self, *declarations: Declaration) -> None:
        """Be connected, with this declared, and nothing to do for messages that need no more."""
        self.open = True
        self._declared |= {(), declarations}

    def block(self) -> None:
        """Take no messages until :meth:`unblock`."""
        self.why_blocked = "the broker is blocked"
        self.preparing.hold()

    def unblock(self) -> None:
        self.why_blocked = None
        self.preparing.release()

    def answer(self, name: str, error: BridgetaskError | None = None) -> None:
        """Tell what became of a message: that the broker has it, unless there is an error."""
        (sending,) = (each for each in self.on_their_way if each.message.task_id == name)
        self.on_their_way.remove(sending)
        self._on_answer(sending, error)

    def confirm(self, *names: str) -> None:
        """Tell that the broker has messages: all that are on their way if none is named."""
        for name in names or [str(each.message.task_id) for each in self.on_their_way]:
            self.answer(name)

    def lose(self, error: BridgetaskError | None = None) -> None:
        """Lose the connection, under all that are on their way."""
        self.open = False
        self._close_channel(error or ConnectionLost("the connection was lost"))

    def refuse_by_closing(self) -> None:
        """Close the channel over one of those that are on their way."""
        self._close_channel(ClosedOver("no such exchange", code=404))

    def _close_channel(self, error: BridgetaskError) -> None:
        self._declared.clear()
        lost, self.on_their_way = self.on_their_way, []
        for sending in reversed(lost):  # each goes back to its place, before all others
            self._on_answer(sending, error)

    # What the outbox does.

    def start(self, on_answer: OnAnswer) -> None:
        self._on_answer = on_answer

    @property
    def is_open(self) -> bool:
        return self.open

    @property
    def blocked(self) -> str | None:
        return self.why_blocked

    def ready(self, message: OutgoingMessage) -> bool:
        return self.open and message.declarations in self._declared

    async def connect(self) -> None:
        await self.connecting.run()
        self.opened()

    async def prepare(self, message: OutgoingMessage) -> None:
        await self.preparing.run(str(message.task_id))
        self.opened(*message.declarations)

    def publish(self, sending: Sending) -> None:
        name = sending.message.task_id
        if name in self.unpublishable:
            raise self.unpublishable[name]
        try:
            assert self.ready(sending.message)
            assert not sending.delivery.done
            assert not self.is_draining
            self.on_publish(sending)
        except AssertionError as error:
            self.broken.append(error)  # the outbox would take it for a failure to publish
        self.log.append(f"publish {name}")
        self.on_their_way.append(sending)
        self.unwritten += 1
        if self.confirms_at_once:
            self.confirm(str(name))

    def flush(self) -> None:
        if self.unwritten:
            self.log.append("flush")
            self.unwritten = 0

    async def drain(self) -> None:
        self.is_draining = True
        self.unwritten = 0
        try:
            await self.draining.run()
        finally:
            self.is_draining = False

    def forget(self, sending: Sending) -> None:
        self.forgotten.append(sending.message.task_id)
        self.on_their_way.remove(sending)

    def retire(self) -> None:
        self.log.append("retire")

    async def close(self) -> None:
        await self.closing.run()

    def abort(self) -> None:
        self.log.append("abort")


class ScriptedReceiver(Receiver):
    """Is ready when a test says so; to prepare it is an operation, which makes nothing ready."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.is_ready = False
        self.preparing = Operation(f"prepare {name}", log)

    @property
    def ready(self) -> bool:
        return self.is_ready

    async def prepare(self) -> None:
        await self.preparing.run()


class ScriptedStore(ResultStore):
    """Notes what is written."""

    def __init__(self, log: list[str]) -> None:
        self.writing = Operation("write", log)

    async def write(self, writes: Sequence[StoreWrite]) -> None:
        await self.writing.run(",".join(str(write.commands[0][0]) for write in writes))
