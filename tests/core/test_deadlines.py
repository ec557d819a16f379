"""The deadlines of many messages, by one timer."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest

from bridgetask.core.deadlines import Deadlines
from bridgetask.core.publishing import Sending
from bridgetask.wire.message import OutgoingMessage

from .outbox_rig import Told
from .steered_loop import SteeredLoop


class Watched:
    """Deadlines, and what they called back for: the messages' numbers with the seconds since."""

    def __init__(self) -> None:
        self.loop = SteeredLoop()
        self.began = self.loop.time()
        self.in_flight: set[Sending] = set()
        self.expired: list[tuple[int, float]] = []
        self.deadlines = Deadlines(self.loop, self.on_expired, self.in_flight)

    def add(self, number: int, seconds: float) -> Sending:
        message = OutgoingMessage("", "queue", b"", {})
        sending = Sending(number, message, Told(), self.loop.time() + seconds, None)
        self.deadlines.add(sending)
        return sending

    def on_expired(self, sending: Sending) -> None:
        self.expired.append((sending.number, self.loop.time() - self.began))
        sending.delivery.complete()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.deadlines.cancel()
    assert made.loop.idle() is None
    made.loop.close()


def test_each_is_called_back_for_at_its_time_whatever_order_they_came_in(watched: Watched) -> None:
    for number, seconds in enumerate((5, 7, 3, 4, 7, 1)):
        watched.add(number, seconds)
    watched.loop.advance(0.5)
    assert watched.expired == []
    watched.loop.advance(10)
    assert watched.expired == [(5, 1), (2, 3), (3, 4), (0, 5), (1, 7), (4, 7)]
    assert watched.loop.idle() is None


def test_the_timer_is_set_for_the_earliest(watched: Watched) -> None:
    watched.add(0, 5)
    assert watched.loop.idle() == 5
    watched.add(1, 7)
    assert watched.loop.idle() == 5
    watched.add(2, 3)
    assert watched.loop.idle() == 3
    watched.loop.advance(3)
    assert watched.loop.idle() == 2


def test_those_that_are_settled_are_not_called_back_for(watched: Watched) -> None:
    first, second = watched.add(0, 1), watched.add(1, 2)
    watched.add(2, 3)
    for each in (second, first):
        each.delivery.complete()
        watched.deadlines.tidy()
    watched.loop.advance(5)
    assert watched.expired == [(2, 3)]


def test_one_that_is_settled_without_a_word_is_not_called_back_for_either(watched: Watched) -> None:
    watched.add(0, 1).delivery.complete()
    watched.add(1, 2)
    watched.loop.advance(5)
    assert watched.expired == [(1, 2)]


def test_one_that_is_settled_and_still_on_its_way_is_called_back_for(watched: Watched) -> None:
    sending = watched.add(0, 1)
    watched.in_flight.add(sending)
    sending.delivery.complete()
    watched.deadlines.tidy()
    watched.loop.advance(1)
    assert watched.expired == [(0, 1)]


def test_nothing_is_held_of_those_that_are_settled(watched: Watched) -> None:
    kept = watched.add(0, 1)
    told = weakref.ref(watched.add(1, 2).delivery)
    assert told() is not None
    told().complete()  # type: ignore[union-attr]
    kept.delivery.complete()
    watched.deadlines.tidy()
    assert told() is None


def test_more_may_be_added_by_what_is_called_back(watched: Watched) -> None:
    first = watched.add(0, 2)
    first.delivery.then(lambda: watched.add(1, 0))
    first.delivery.then(lambda: watched.add(2, 1))
    watched.loop.advance(5)
    assert watched.expired == [(0, 2), (1, 2), (2, 3)]


def test_what_is_called_back_may_cancel_the_rest(watched: Watched) -> None:
    first = watched.add(0, 2)
    watched.add(1, 2)
    watched.add(2, 3)
    first.delivery.then(watched.deadlines.cancel)
    watched.loop.advance(5)
    assert watched.expired == [(0, 2)]


def test_one_whose_deadline_has_passed_is_called_back_for_in_the_next_turn(
    watched: Watched,
) -> None:
    watched.add(0, 5)
    watched.add(1, -3)
    assert watched.expired == []
    watched.loop.turn()
    assert watched.expired == [(1, 0)]


def test_nothing_is_called_back_for_after_cancelling(watched: Watched) -> None:
    watched.add(0, 1)
    watched.deadlines.cancel()
    assert watched.loop.idle() is None
    watched.add(1, 2)  # and it can go on
    watched.loop.advance(5)
    assert watched.expired == [(1, 2)]
