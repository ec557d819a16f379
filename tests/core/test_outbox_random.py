"""The outbox under random scripts of calls, answers, losses, failures, and time that passes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridgetask.core.publishing import Sending
from bridgetask.errors import (
    BackendRefused,
    BackendUnreachable,
    BrokerUnreachable,
    InvalidOption,
    NotRoutable,
    Refused,
    Unconfirmed,
)
from bridgetask.retry import RetryPolicy

from .outbox_rig import PATIENT, Rig, declaration, open_rig, twice, write

#: More than this, by other seeds each time: BRIDGETASK_OUTBOX_EXAMPLES=10000.
EXAMPLES = os.environ.get("BRIDGETASK_OUTBOX_EXAMPLES")
#: How many messages may be on their way.
ROOM = 3
#: The longest that a message may take.
LONGEST = 20
#: The longest pause between two attempts, with room for the last attempt itself.
LONGEST_PAUSE = 6


@dataclass
class Call:
    """A message, and what a broker does with it."""

    kind: str = "good"
    size: str = "small"
    needs: str = "nothing"
    retry: RetryPolicy | None = None
    within: float = 10.0
    #: How long the log was when it was sent.
    sent_at: int = 0
    deadline: float = 0.0
    #: Whether the channel was closed while it was on its way.
    suspect: bool = False

    @property
    def needs_backend(self) -> bool:
        return self.needs in {"results", "write"}


calls = st.builds(
    Call,
    kind=st.sampled_from(["good"] * 5 + ["guilty", "unroutable", "not accepted", "invalid"]),
    size=st.sampled_from(["small"] * 5 + ["large", "alone"]),
    needs=st.sampled_from(["nothing"] * 4 + ["results", "replies", "write", "declaration"]),
    retry=st.sampled_from([PATIENT, PATIENT, twice(1), None]),
    within=st.sampled_from([2.0, 10.0, float(LONGEST)]),
)
few = st.integers(0, ROOM)
steps = st.one_of(
    st.tuples(st.just("run")),
    st.tuples(st.just("send"), calls),
    st.tuples(st.just("send"), calls),
    st.tuples(st.just("answer"), few),
    st.tuples(st.just("answer"), few),
    st.tuples(st.just("lose"), few),
    st.tuples(st.just("result"), st.integers(0, 50)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("advance"), st.sampled_from([0.25, 1.0, 5.0])),
    st.tuples(st.just("fail"), st.sampled_from(["broker", "results", "replies", "store"]), few),
    st.tuples(st.just("hold"), st.sampled_from(["broker", "results", "store", "drain"])),
    st.tuples(st.just("release")),
)


@dataclass
class World:
    """A broker that does with each call what its kind says, and a watch over all that is told."""

    rig: Rig
    calls: dict[str, Call] = field(default_factory=dict)
    #: The messages that the broker has.
    has: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rig.publisher.on_publish = self.check_publish

    @property
    def on_their_way(self) -> list[str]:
        return [str(each.message.task_id) for each in self.rig.publisher.on_their_way]

    # What happens.

    def send(self, call: Call) -> None:
        rig, name = self.rig, f"m{len(self.calls)}"
        deadline = rig.loop.time() + call.within
        self.calls[name] = replace(call, sent_at=len(rig.log), deadline=deadline)
        if call.kind == "invalid":
            rig.publisher.unpublishable[name] = InvalidOption("headers", "can't be encoded")
        receivers = {"results": rig.results, "replies": rig.replies}
        rig.send(
            name,
            size={"small": 1, "large": rig.publisher.large, "alone": rig.publisher.alone}[
                call.size
            ],
            retry=call.retry,
            within=call.within,
            receiver=receivers.get(call.needs),
            writes=(write(name),) if call.needs == "write" else (),
            declares=(declaration(name),) if call.needs == "declaration" else (),
        )

    def answer(self, count: int) -> None:
        for name in self.on_their_way[:count]:
            kind = self.calls[name].kind
            if kind == "guilty":
                known = self.calls[name].suspect or self.calls[name].size == "alone"
                for each in self.on_their_way:
                    self.calls[each].suspect = True
                self.rig.publisher.refuse_by_closing()
                assert self.rig.told[name].done or not known
                return
            if kind == "good":
                self.has.add(name)
                self.rig.publisher.confirm(name)
            elif kind == "unroutable":
                self.rig.publisher.answer(name, NotRoutable("NO_ROUTE"))
            else:
                self.rig.publisher.answer(name, Refused("not accepted"))

    def lose(self, count: int) -> None:
        """Lose the connection, when the broker has so many messages and has not said so."""
        for name in self.on_their_way[:count]:
            if self.calls[name].kind == "guilty":
                break
            if self.calls[name].kind == "good":
                self.has.add(name)
        self.rig.publisher.lose()

    def result(self, number: int) -> None:
        """Let a result settle one of the messages that the broker has, as it settles calls."""
        waiting = [name for name in sorted(self.has) if not self.rig.told[name].done]
        if waiting:
            self.rig.told[waiting[number % len(waiting)]].complete()

    def turn(self) -> None:
        self.rig.loop.turn()

    def run(self) -> None:
        self.rig.run()

    def advance(self, seconds: float) -> None:
        self.rig.loop.advance(seconds)

    def fail(self, which: str, times: int) -> None:
        if which == "store":
            self.rig.store.writing.fail(*[BackendUnreachable("no store")] * times)
        elif which == "results":
            errors = [BackendUnreachable("no store"), BackendRefused("no"), OSError("odd")]
            self.rig.results.preparing.fail(*errors[:times])
        elif which == "replies":
            self.rig.replies.preparing.fail(*[BrokerUnreachable("can't connect")] * times)
        else:
            errors = [BrokerUnreachable("can't connect"), Refused("no", code=403), OSError("odd")]
            self.rig.publisher.preparing.fail(*errors[:times])

    def hold(self, which: str) -> None:
        if which == "broker":
            self.rig.publisher.block()
        elif which == "results":
            self.rig.results.preparing.hold()
        elif which == "store":
            self.rig.store.writing.hold()
        else:
            self.rig.publisher.draining.hold()

    def release(self) -> None:
        self.rig.publisher.unblock()
        for each in (self.rig.results.preparing, self.rig.store.writing):
            each.release()
        self.rig.publisher.draining.release()

    def heal(self) -> None:
        """Let all go well from now on, until nothing is left to be done."""
        self.release()
        rig = self.rig
        for each in (rig.publisher.preparing, rig.store.writing, rig.results.preparing):
            each.forgive()
        rig.replies.preparing.forgive()
        waiting = [name for name, told in rig.told.items() if not told.done]
        healed_at = rig.loop.time()
        drained = rig.loop.create_task(rig.outbox.drain())
        for _ in range(LONGEST):
            rig.run()
            while self.on_their_way:
                self.answer(ROOM)
                rig.run()
            rig.loop.advance(1)
        assert drained.done()
        assert rig.outbox.queued == rig.outbox.in_flight == 0
        for name in waiting:
            call = self.calls[name]
            in_time = call.deadline > healed_at + LONGEST_PAUSE
            if call.kind == "good" and call.retry is PATIENT and in_time:
                assert rig.told[name].confirmed

    # What must hold.

    def check_publish(self, sending: Sending) -> None:
        """Look at a message that is about to be published."""
        name, on_their_way = str(sending.message.task_id), self.on_their_way
        call = self.calls[name]
        assert self.rig.publisher.blocked is None
        assert len(on_their_way) < ROOM
        if call.size == "alone" or call.suspect:
            assert not on_their_way
        assert not any(self.calls[each].size == "alone" for each in on_their_way)
        for earlier in list(self.calls)[: int(name[1:])]:
            if not self.rig.told[earlier].done and earlier not in on_their_way:
                assert self.calls[earlier].needs_backend, f"{name} overtakes {earlier}"
        if call.needs in {"results", "replies"}:
            receiver = getattr(self.rig, call.needs)
            assert receiver.preparing.served >= call.sent_at
        if call.needs == "write":
            assert self.rig.log.count(f"write {name}") > 0

    def check(self) -> None:
        """Look at what has been published and told by now."""
        for error in self.rig.publisher.broken:
            raise error
        for name, call in self.calls.items():
            told = self.rig.told[name]
            if told.confirmed:
                assert name in self.has
            elif told.done and type(told.error) is not Unconfirmed:
                assert name not in self.has, f"the broker has {name}: {told.error!r}"
            assert told.done or call.deadline > self.rig.loop.time()


def play(script: list[Any], end: Callable[[World], object]) -> None:
    with open_rig(max_in_flight=ROOM) as rig:
        rig.loop.set_debug(False)  # it makes every step many times as slow
        rig.publisher.opened()
        world = World(rig)
        for name, *arguments in script:
            getattr(world, name)(*arguments)
            world.check()
        end(world)
        world.check()
    world.check()


examples = settings(max_examples=int(EXAMPLES or 100), derandomize=EXAMPLES is None, deadline=None)


@examples
@given(st.lists(steps, min_size=20, max_size=60))
def test_whatever_happens_each_is_told_once_and_truly_and_keeps_its_place(
    script: list[Any],
) -> None:
    play(script, World.heal)


@examples
@given(st.lists(steps, min_size=10, max_size=40), st.sampled_from(["close", "abort"]))
def test_whenever_it_ends_each_is_told_once_and_truly(script: list[Any], end: str) -> None:
    play(script, lambda world: world.rig.close() if end == "close" else world.rig.outbox.abort())
