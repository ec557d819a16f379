"""The outbox: the order of what it publishes, what goes in one turn, and how much is on its way."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest

from bridgetask.errors import BrokerUnreachable, InvalidOption, NotSent, SendError

from .outbox_rig import PATIENT, Rig, declaration, open_rig, rig, write

__all__ = ["rig"]


def test_what_is_sent_goes_in_the_next_turn_in_its_order_and_in_one_write(rig: Rig) -> None:
    rig.send_all("abcde")
    assert rig.log == []
    rig.loop.turn()
    assert rig.log == [*(f"publish {name}" for name in "abcde"), "flush"]
    rig.publisher.confirm()
    rig.run()
    assert rig.confirmed == "abcde"
    assert not rig.loop.tasks


def test_a_message_that_is_confirmed_is_told_so_at_once_and_no_other_one_is(rig: Rig) -> None:
    rig.send_all("abc")
    rig.run()
    rig.publisher.confirm("b")
    assert rig.confirmed == "b"
    assert rig.pending == "ac"


def test_no_more_messages_are_published_in_a_turn_than_the_publisher_takes(rig: Rig) -> None:
    rig.publisher.per_turn = 2
    rig.send_all("abcde")
    for published in ("ab", "abcd", "abcde"):
        rig.loop.call_soon(rig.log.append, "somebody else")
        rig.loop.turn()
        assert rig.published == published
    assert rig.log == [
        *("publish a", "publish b", "flush", "somebody else"),
        *("publish c", "publish d", "flush", "somebody else"),
        *("publish e", "flush", "somebody else"),
    ]


def test_what_is_sent_while_others_wait_for_their_turn_goes_after_them(rig: Rig) -> None:
    rig.publisher.per_turn = 1
    rig.send_all("ab")
    rig.loop.turn()
    rig.send("c")
    rig.run()
    assert rig.published == "abc"


def test_a_call_from_a_callback_of_a_confirm_goes_after_what_waits(rig: Rig) -> None:
    rig.publisher.per_turn = 1
    told = rig.send("a")
    told.then(lambda: rig.send("d"))
    rig.send_all("bc")
    rig.loop.turn()
    rig.publisher.confirm()
    rig.run()
    assert rig.published == "abcd"


def test_it_counts_what_is_not_settled_and_what_is_on_its_way() -> None:
    with open_rig(max_in_flight=2) as rig:
        rig.publisher.opened()
        rig.send_all("abc")
        assert (rig.outbox.queued, rig.outbox.in_flight) == (3, 0)
        rig.run()
        assert (rig.outbox.queued, rig.outbox.in_flight) == (3, 2)
        rig.told["b"].complete()  # by its result
        assert (rig.outbox.queued, rig.outbox.in_flight) == (2, 2)
        rig.publisher.confirm("a", "b")
        rig.run()
        assert (rig.outbox.queued, rig.outbox.in_flight) == (1, 1)


def test_nothing_is_held_of_messages_that_are_settled(rig: Rig) -> None:
    deliveries = [weakref.ref(each) for each in rig.send_all("abcd", retry=PATIENT)]
    rig.run()
    rig.publisher.confirm("b")
    rig.publisher.lose()
    rig.run()
    rig.publisher.answer("a", NotSent("no"))
    rig.publisher.confirm()
    rig.run()
    assert rig.pending == ""
    rig.told.clear()
    gc.collect()  # errors and their causes
    assert [each() for each in deliveries] == [None] * 4


# How much is on its way.


def test_no_more_messages_are_on_their_way_than_may_be() -> None:
    with open_rig(max_in_flight=2) as rig:
        rig.publisher.opened()
        rig.send_all("abcde")
        for confirmed, published in (("", "ab"), ("b", "abc"), ("a", "abcd"), ("c", "abcde")):
            rig.publisher.confirm(*confirmed) if confirmed else None
            rig.run()
            assert rig.published == published
        assert not rig.loop.tasks


def test_no_more_are_on_their_way_than_may_be_where_each_needs_a_declaration() -> None:
    with open_rig(max_in_flight=2) as rig:
        for name in "abcd":
            rig.send(name, declares=(declaration(name),))
        rig.run()
        assert rig.published == "ab"
        rig.publisher.confirm("a")
        rig.run()
        assert rig.published == "abc"
        rig.publisher.confirm("c")
        rig.run()
        assert rig.published == "abcd"


def test_a_refusal_makes_room_too() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.publisher.opened()
        rig.send_all("ab")
        rig.run()
        rig.publisher.answer("a", NotSent("no"))
        rig.run()
        assert rig.published == "ab"


def test_a_channel_that_was_lost_while_a_message_waited_for_room_is_opened_again() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.send_all("ab", declares=(declaration("q"),), writes=(write("w"),))
        rig.run()
        rig.publisher.lose()
        rig.run()
        assert rig.failed == "a"
        assert rig.published == "ab"
        assert rig.log.count("prepare b") == 2


# Large messages.


def test_a_large_message_is_written_out_before_the_next_is_published(rig: Rig) -> None:
    rig.publisher.draining.hold()
    rig.send("a")
    rig.send("b", size=rig.publisher.large)
    rig.send("c")
    rig.run()
    assert rig.log == ["publish a", "flush", "prepare b", "publish b", "drain"]
    rig.send("d")
    rig.publisher.confirm()  # the broker may be quicker than the socket
    rig.run()
    assert rig.published == "ab"
    rig.publisher.draining.release()
    rig.run()
    assert rig.published == "abcd"


def test_a_message_just_below_large_goes_with_the_others(rig: Rig) -> None:
    rig.send("a", size=rig.publisher.large - 1)
    rig.send("b")
    rig.run()
    assert rig.log == ["publish a", "publish b", "flush"]


def test_messages_behind_a_large_one_are_flushed_without_waiting_for_it(rig: Rig) -> None:
    rig.send("a", size=rig.publisher.large)
    rig.send("b")
    rig.run()
    assert rig.log == ["prepare a", "publish a", "drain", "publish b", "flush"]


def test_a_small_message_that_had_to_be_prepared_is_flushed_at_once(rig: Rig) -> None:
    rig.send("a", declares=(declaration("a"),))
    rig.send("b", declares=(declaration("b"),))
    rig.run()
    assert rig.log == [
        *("prepare a", "publish a", "flush"),
        *("prepare b", "publish b", "flush"),
    ]


def test_a_very_large_message_is_the_only_one_on_its_way(rig: Rig) -> None:
    rig.send_all("ab")
    rig.send("c", size=rig.publisher.alone)
    rig.send_all("de")
    rig.run()
    assert rig.published == "ab"
    rig.publisher.confirm("b")
    rig.run()
    assert rig.published == "ab"
    rig.publisher.confirm("a")
    rig.run()
    assert rig.published == "abc"
    rig.publisher.confirm("c")
    rig.run()
    assert rig.published == "abcde"


def test_a_very_large_message_that_is_lost_before_it_could_go_keeps_no_other_one(rig: Rig) -> None:
    rig.send("a")
    rig.send("b", size=rig.publisher.alone, within=5)
    rig.send("c")
    rig.run()
    rig.loop.advance(5)
    assert rig.failed == "b"
    assert rig.published == "ac"


# A broker that takes nothing for now.


def test_while_the_broker_is_blocked_nothing_is_published(rig: Rig) -> None:
    rig.publisher.block()
    rig.send_all("abc")
    rig.run()
    assert rig.published == ""
    rig.publisher.unblock()
    rig.run()
    assert rig.published == "abc"


def test_a_broker_that_is_blocked_later_stops_what_is_sent_from_then_on(rig: Rig) -> None:
    rig.send("a")
    rig.run()
    rig.publisher.block()
    rig.publisher.confirm()
    rig.send("b")
    rig.run()
    assert rig.published == "a"
    assert rig.confirmed == "a"
    rig.publisher.unblock()
    rig.run()
    assert rig.published == "ab"


def test_a_broker_that_is_blocked_while_a_message_waits_for_room_stops_that_too() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.send_all("ab", declares=(declaration("q"),), writes=(write("w"),))
        rig.run()
        assert rig.published == "a"
        rig.publisher.block()
        rig.publisher.confirm("a")
        rig.run()
        assert rig.published == "a"
        rig.publisher.unblock()
        rig.run()
        assert rig.published == "ab"


# What fails alone.


def test_a_message_that_cannot_be_encoded_fails_alone_as_it_is(rig: Rig) -> None:
    error = rig.publisher.unpublishable["b"] = InvalidOption("headers", "can't be encoded")
    rig.send_all("abc")
    rig.run()
    assert rig.published == "ac"
    assert rig.told["b"].error is error
    rig.publisher.confirm()
    assert rig.confirmed == "ac"
    assert rig.outbox.in_flight == 0


def test_whatever_publishing_raises_fails_that_message_alone_and_is_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.publisher.unpublishable["b"] = ZeroDivisionError("odd")
    rig.send_all("abc")
    rig.run()
    assert rig.published == "ac"
    error = rig.told["b"].error
    assert isinstance(error, NotSent)
    assert str(error) == "task b was not sent: unexpected ZeroDivisionError('odd')"
    assert error.task_id == "b"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


def test_one_that_fails_at_publishing_is_followed_by_one_that_must_be_prepared(rig: Rig) -> None:
    rig.publisher.unpublishable["a"] = InvalidOption("headers", "can't be encoded")
    rig.publisher.preparing.hold()
    rig.send("a")
    rig.send("b", declares=(declaration("b"),))
    rig.run()
    assert len(rig.loop.tasks) == 1  # two would publish at the same time
    rig.publisher.preparing.release()
    rig.run()
    assert rig.log.count("prepare b") == 1
    assert rig.published == "b"


def test_one_that_fails_at_publishing_after_it_was_prepared_fails_alone(rig: Rig) -> None:
    rig.publisher.unpublishable["a"] = InvalidOption("headers", "can't be encoded")
    rig.send("a", declares=(declaration("a"),))
    rig.send("b")
    rig.run()
    assert rig.failed == "a"
    assert rig.published == "b"


def test_a_publisher_may_answer_while_it_takes_a_message() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.publisher.opened()
        rig.publisher.confirms_at_once = True
        rig.publisher.per_turn = 2
        rig.send_all("abc")
        rig.send("d", declares=(declaration("d"),))
        rig.send("e", size=rig.publisher.alone)
        rig.send("f")
        rig.run()
        assert rig.published == "abcdef" == rig.confirmed
        assert len(rig.loop.tasks) == 1


# Those who wait.


def test_cancelling_who_waits_for_a_message_does_not_cancel_it(rig: Rig) -> None:
    told = rig.send("a")
    before, after = (rig.loop.create_task(told.wait()) for _ in range(2))
    rig.loop.turn()
    before.cancel()
    rig.run()
    assert rig.published == "a"
    after.cancel()
    rig.run()
    still = rig.loop.create_task(told.wait())
    rig.run()
    rig.publisher.confirm()
    rig.run()
    assert still.done()
    assert still.exception() is None
    assert before.cancelled()
    assert after.cancelled()


def test_who_waits_for_a_message_gets_its_error(rig: Rig) -> None:
    told = rig.send("a")
    waiting = [rig.loop.create_task(told.wait()) for _ in range(2)]
    rig.run()
    rig.publisher.answer("a", NotSent("no"))
    rig.run()
    for task in waiting:
        with pytest.raises(SendError, match="task a was not sent: no"):
            task.result()


def test_a_message_without_a_task_is_told_so(rig: Rig) -> None:
    told = rig.send("")
    rig.run()
    rig.publisher.answer("", NotSent("no"))
    assert str(told.error) == "message was not sent: no"


def test_a_message_whose_result_is_there_already_is_not_published(rig: Rig) -> None:
    rig.send_all("ab")
    rig.told["a"].complete()  # it was sent from elsewhere, under the same id
    rig.run()
    assert rig.published == "b"


# Connecting.


def test_connecting_raises_what_the_publisher_raises() -> None:
    with open_rig() as rig:
        rig.publisher.connecting.fail(BrokerUnreachable("nobody there"))
        with pytest.raises(BrokerUnreachable, match="nobody there"):
            rig.loop.finish(rig.outbox.connect())
        rig.loop.finish(rig.outbox.connect())
        rig.send("a")
        rig.run()
        assert rig.log == ["connect", "connect", "publish a", "flush"]


def test_a_message_that_comes_while_it_connects_goes_when_it_has() -> None:
    with open_rig() as rig:
        rig.publisher.connecting.hold()
        rig.publisher.preparing.hold()
        connecting = rig.loop.create_task(rig.outbox.connect())
        rig.send("a")
        rig.run()
        assert rig.published == ""
        rig.publisher.connecting.release()
        rig.run()
        assert connecting.done()
        rig.publisher.preparing.release()
        rig.run()
        assert rig.published == "a"
