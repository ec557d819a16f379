"""An outbox between a test that calls it and a publisher that the test steers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridgetask.core.completion import Completion
from bridgetask.core.outbox import Outbox
from bridgetask.core.receiving import Receiver
from bridgetask.retry import RetryPolicy
from bridgetask.wire.message import Declaration, OutgoingMessage, StoreWrite

from .scripted import ScriptedPublisher, ScriptedReceiver, ScriptedStore
from .steered_loop import SteeredLoop

__all__ = ["PATIENT", "Rig", "Told", "declaration", "open_rig", "rig", "twice", "write"]

#: Tries again as often as it takes, at once at first, then after 1 s, then 2, up to 5.
PATIENT = RetryPolicy(None, interval_start=0, interval_step=1, interval_max=5)


def twice(interval: float) -> RetryPolicy:
    """Return a policy that allows two retries, each after so many seconds."""
    return RetryPolicy(2, interval, 0, interval)


def declaration(name: str) -> Declaration:
    return Declaration.of("queue_declare", name, {})


def write(name: str) -> StoreWrite:
    return StoreWrite(((name,),))


class Told(Completion):
    """A delivery that counts how many times it was told what became of it."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def complete(self, error: BaseException | None = None) -> None:
        self.times += 1
        super().complete(error)

    @property
    def confirmed(self) -> bool:
        return self.done and self.error is None


class Rig:
    """An outbox, all that it works with, and a log of what it asked of them."""

    def __init__(self, max_in_flight: int = 100) -> None:
        self.loop = SteeredLoop()
        self.log: list[str] = []
        self.publisher = ScriptedPublisher(self.log)
        self.results = ScriptedReceiver("results", self.log)
        self.replies = ScriptedReceiver("replies", self.log)
        self.store = ScriptedStore(self.log)
        self.outbox = Outbox(self.publisher, self.store, self.loop, max_in_flight=max_in_flight)
        self.told: dict[str, Told] = {}

    def send(
        self,
        name: str,
        *,
        size: int = 1,
        retry: RetryPolicy | None = None,
        within: float = 30,
        timeout: float | None = None,
        receiver: Receiver | None = None,
        writes: tuple[StoreWrite, ...] = (),
        declares: tuple[Declaration, ...] = (),
    ) -> Told:
        """Send a message; its task id is its name.

        :param within: seconds after which its deadline passes.
        """
        message = OutgoingMessage(
            "", "queue", bytes(size), {}, declares, writes, retry, timeout, task_id=name
        )
        told = self.told[name] = Told()
        self.outbox.send(message, told, self.loop.time() + within, receiver)
        return told

    def send_all(self, names: str, **options: object) -> list[Told]:
        """Send messages of which each has one letter for a name."""
        return [self.send(name, **options) for name in names]  # type: ignore[arg-type]

    @property
    def published(self) -> str:
        """The names of what was published so far, in order; as one word."""
        return "".join(each.split()[1] for each in self.log if each.startswith("publish "))

    @property
    def confirmed(self) -> str:
        return "".join(name for name, told in self.told.items() if told.confirmed)

    @property
    def failed(self) -> str:
        return "".join(name for name, told in self.told.items() if told.error is not None)

    @property
    def pending(self) -> str:
        return "".join(name for name, told in self.told.items() if not told.done)

    def run(self) -> None:
        """Let all happen that happens without any time passing."""
        self.loop.idle()
        assert not self.publisher.unwritten
        for error in self.publisher.broken:
            raise error

    def close(self) -> None:
        self.loop.finish(self.outbox.close())

    def check(self) -> None:
        """Drop the outbox; fail unless each message is settled once, and nothing is left of it."""
        for error in self.publisher.broken:
            raise error
        self.outbox.abort()
        assert self.loop.idle() is None, "a timer is left"
        self.loop.check_nothing_left()
        assert {name: told.times for name, told in self.told.items() if told.times != 1} == {}


@contextmanager
def open_rig(max_in_flight: int = 100) -> Iterator[Rig]:
    """Yield an outbox, and look afterwards at what it leaves behind."""
    opened = Rig(max_in_flight)
    try:
        yield opened
        opened.check()
    finally:
        opened.loop.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """An outbox whose publisher is connected, and takes all that needs no declarations."""
    with open_rig() as opened:
        opened.publisher.opened()
        yield opened
