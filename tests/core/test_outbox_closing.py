"""The outbox: draining and closing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridgetask.errors import (
    BackendUnreachable,
    BrokerUnreachable,
    ClientClosed,
    NotSent,
    Unconfirmed,
)

from .outbox_rig import PATIENT, Rig, declaration, open_rig, rig, twice, write

__all__ = ["rig"]

# Draining.


def test_draining_waits_for_all_that_was_taken_wherever_it_is() -> None:
    with open_rig(max_in_flight=2) as rig:
        rig.publisher.opened()
        rig.results.preparing.fail(BackendUnreachable("can't connect"))
        rig.send("a", receiver=rig.results, retry=twice(1))  # goes aside
        rig.send_all("bcd")
        rig.run()
        draining = rig.loop.create_task(rig.outbox.drain())
        for published in ("bc", "bcad"):
            rig.loop.advance(1)
            assert rig.published == published
            assert not draining.done()
            rig.publisher.confirm()
        rig.run()
        assert draining.done()
        assert rig.confirmed == "abcd"


def test_draining_ends_at_once_where_nothing_waits(rig: Rig) -> None:
    rig.loop.finish(rig.outbox.drain())
    rig.send("a")
    rig.run()
    rig.publisher.confirm()
    rig.loop.finish(rig.outbox.drain())


def test_draining_waits_for_what_comes_meanwhile_too(rig: Rig) -> None:
    rig.send("a")
    draining = rig.loop.create_task(rig.outbox.drain())
    rig.run()
    rig.send("b")
    rig.run()
    rig.publisher.confirm("a")
    rig.run()
    assert not draining.done()
    rig.told["b"].complete()  # its result comes before its confirm
    rig.run()
    assert draining.done()


def test_draining_ends_when_results_came_in_place_of_confirms(rig: Rig) -> None:
    rig.send_all("ab")
    rig.run()
    draining = rig.loop.create_task(rig.outbox.drain())
    rig.run()
    for name in "ba":
        assert not draining.done()
        rig.told[name].complete()
        rig.run()
    assert draining.done()


def test_draining_ends_at_the_last_deadline_whatever_the_broker_does(rig: Rig) -> None:
    rig.send_all("abc", within=5)
    draining = rig.loop.create_task(rig.outbox.drain())
    rig.loop.advance(5)
    assert draining.done()
    assert rig.failed == "abc"


def test_who_drains_asks_for_no_errors(rig: Rig) -> None:
    told = rig.send("a")
    draining = rig.loop.create_task(rig.outbox.drain())
    rig.run()
    assert not told.awaited
    rig.publisher.lose()
    rig.run()
    assert draining.done()
    assert draining.exception() is None
    assert not told.raised


def test_cancelling_who_drains_changes_nothing(rig: Rig) -> None:
    rig.send("a")
    draining = rig.loop.create_task(rig.outbox.drain())
    rig.run()
    draining.cancel()
    rig.run()
    rig.publisher.confirm()
    assert rig.confirmed == "a"


# Closing.


def nothing_sent(rig: Rig) -> None:
    pass


def being_prepared(rig: Rig) -> None:
    rig.publisher.preparing.hold()
    rig.send_all("ab", declares=(declaration("q"),))
    rig.run()


def pausing(rig: Rig) -> None:
    rig.publisher.preparing.fail(BrokerUnreachable("can't connect"))
    rig.send_all("ab", declares=(declaration("q"),), retry=twice(1))
    rig.run()


def blocked(rig: Rig) -> None:
    rig.publisher.block()
    rig.send_all("ab")
    rig.run()


def aside(rig: Rig) -> None:
    rig.results.preparing.fail(BackendUnreachable("can't connect"))
    rig.send_all("ab", receiver=rig.results, retry=twice(1))
    rig.run()


def on_their_way(rig: Rig) -> None:
    rig.send_all("ab")
    rig.run()


def on_their_way_again(rig: Rig) -> None:
    rig.send_all("ab", retry=PATIENT)
    rig.run()
    rig.publisher.lose()
    rig.run()


def waiting_to_go_again(rig: Rig) -> None:
    on_their_way_again(rig)
    rig.publisher.preparing.hold()
    rig.publisher.lose()
    rig.run()


def aside_after_a_loss(rig: Rig) -> None:
    rig.send_all("ab", writes=(write("w"),), retry=twice(1))
    rig.run()
    rig.store.writing.fail(BackendUnreachable("can't connect"))
    for sending in rig.publisher.on_their_way:
        sending.message.requires = (write("w"),)
    rig.publisher.lose()
    rig.run()


def one_by_one(rig: Rig) -> None:
    rig.send_all("ab", retry=PATIENT)
    rig.run()
    rig.publisher.refuse_by_closing()
    rig.run()


def being_drained(rig: Rig) -> None:
    rig.publisher.draining.hold()
    rig.send("a", size=rig.publisher.large)
    rig.send("b")
    rig.run()


def waiting_for_room(rig: Rig) -> None:
    rig.send("a")
    rig.send("b", size=rig.publisher.alone)
    rig.run()


#: Messages a and b in every state, and which of them may be with the broker.
STATES: list[tuple[Callable[[Rig], None], str]] = [
    (nothing_sent, ""),
    (being_prepared, ""),
    (pausing, ""),
    (blocked, ""),
    (aside, ""),
    (on_their_way, "ab"),
    (on_their_way_again, "ab"),
    (waiting_to_go_again, "ab"),
    (aside_after_a_loss, "ab"),
    (one_by_one, "ab"),
    (being_drained, "a"),
    (waiting_for_room, "a"),
]


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize(
    ("state", "published"), STATES, ids=lambda each: getattr(each, "__name__", "")
)
def test_at_the_end_all_are_told_whether_they_may_be_sent(
    rig: Rig, state: Callable[[Rig], None], published: str, end: str
) -> None:
    state(rig)
    sent_before = rig.published
    if end == "close":
        rig.close()
        assert rig.log[-1] == "close"
    else:
        rig.outbox.abort()
        assert not rig.pending  # before it returns
        assert rig.log[-2:] == ["retire", "abort"]
    for name, told in rig.told.items():
        if name in published:
            assert type(told.error) is Unconfirmed
            assert "the client was closed before the broker confirmed" in str(told.error)
            assert told.error.task_id == name
        else:
            assert type(told.error) is ClientClosed
            assert str(told.error) == "the client was closed before the message was sent"
    assert rig.loop.idle() is None  # no timer is left
    assert all(task.done() for task in rig.loop.tasks)
    assert rig.published == sent_before
    assert rig.outbox.queued == 0


def test_closing_in_the_turn_of_a_call_sends_nothing(rig: Rig) -> None:
    async def call_and_close() -> None:
        rig.send_all("ab")
        await rig.outbox.close()

    rig.loop.finish(call_and_close())
    assert rig.log == ["retire", "close"]
    assert {type(told.error) for told in rig.told.values()} == {ClientClosed}


def test_aborting_before_what_must_be_prepared_has_begun_sends_nothing(rig: Rig) -> None:
    rig.send("a", declares=(declaration("q"),))
    rig.loop.turn()
    rig.outbox.abort()
    rig.run()
    assert rig.log == ["retire", "abort"]
    assert type(rig.told["a"].error) is ClientClosed


def test_what_settled_by_its_result_is_not_told_at_the_end(rig: Rig) -> None:
    rig.send("a")
    rig.run()
    rig.told["a"].complete()
    rig.close()
    assert rig.confirmed == "a"


@pytest.mark.parametrize("error", [None, NotSent("no")])
def test_what_the_publisher_tells_after_the_end_changes_nothing(
    rig: Rig, error: NotSent | None
) -> None:
    rig.send_all("ab", retry=PATIENT)
    rig.run()
    rig.close()
    rig.publisher.answer("a", error)
    rig.publisher.lose()
    rig.run()
    assert type(rig.told["a"].error) is Unconfirmed
    assert rig.published == "ab"


def test_closing_retires_the_publisher_before_it_disconnects(rig: Rig) -> None:
    rig.publisher.closing.hold()
    closing = rig.loop.create_task(rig.outbox.close())
    rig.run()
    assert rig.log == ["retire", "close"]
    assert not closing.done()
    rig.publisher.closing.release()
    rig.run()
    assert closing.done()


def test_closing_ends_what_is_being_prepared_before_it_disconnects(rig: Rig) -> None:
    being_prepared(rig)
    rig.close()
    assert rig.log == ["prepare a", "retire", "prepare is cancelled", "close"]


def test_one_that_comes_after_the_end_is_told_so_at_once(rig: Rig) -> None:
    rig.close()
    told = rig.send("a")
    assert type(told.error) is ClientClosed
    assert str(told.error) == "the client was closed"
    assert rig.outbox.queued == 0


def test_one_that_comes_from_the_callback_of_another_at_the_end_is_told_so(rig: Rig) -> None:
    told = rig.send("a")
    told.then(lambda: rig.send("b"))
    rig.outbox.abort()
    assert rig.failed == "ab"


def test_who_drains_when_it_is_closed_is_not_left_waiting(rig: Rig) -> None:
    rig.send_all("ab")
    draining = rig.loop.create_task(rig.outbox.drain())
    rig.run()
    rig.outbox.abort()
    rig.run()
    assert draining.done()


def test_to_abort_under_a_close_that_hangs_ends_it_all_the_same(rig: Rig) -> None:
    rig.publisher.closing.hold()
    rig.send("a")
    closing = rig.loop.create_task(rig.outbox.close())
    rig.run()
    closing.cancel()
    rig.outbox.abort()
    rig.run()
    assert closing.cancelled()
    assert rig.log[-2:] == ["abort", "close is cancelled"]


def test_a_callback_that_ends_it_from_within_a_turn_harms_nothing(rig: Rig) -> None:
    rig.publisher.unpublishable["a"] = ZeroDivisionError("odd")
    told = rig.send("a")
    told.then(rig.outbox.abort)
    rig.send("b")
    rig.run()
    assert rig.published == ""
    assert type(rig.told["b"].error) is ClientClosed


def test_a_callback_that_ends_it_from_within_the_pump_harms_nothing(rig: Rig) -> None:
    rig.publisher.preparing.fail(BrokerUnreachable("can't connect"))
    told = rig.send("a", declares=(declaration("q"),))
    told.then(rig.outbox.abort)
    rig.send("b", retry=PATIENT)
    rig.run()
    assert rig.published == ""
    assert type(rig.told["b"].error) is ClientClosed
