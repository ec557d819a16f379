"""The outbox: what precedes messages, and what becomes of them where that fails."""

from __future__ import annotations

import logging

import pytest

from bridgetask.core.publishing import ConnectionLost
from bridgetask.errors import (
    BackendRefused,
    BackendUnreachable,
    BridgetaskError,
    BrokerUnreachable,
    InvalidOption,
    NotSent,
    Refused,
    SendTimeout,
)
from bridgetask.retry import RetryPolicy

from .outbox_rig import PATIENT, Rig, declaration, open_rig, rig, twice, write
from .scripted import ScriptedReceiver

__all__ = ["rig"]

UNREACHABLE = BrokerUnreachable("can't connect")
NO_STORE = BackendUnreachable("can't connect to the store")


def test_receiver_writes_and_declarations_precede_a_message_in_this_order(rig: Rig) -> None:
    rig.send(
        "a", receiver=rig.results, writes=(write("w"), write("x")), declares=(declaration("q"),)
    )
    rig.run()
    assert rig.log == ["prepare results", "write w,x", "prepare a", "publish a", "flush"]


def test_what_is_prepared_serves_all_that_wait() -> None:
    with open_rig() as rig:
        rig.send_all("abc", receiver=rig.results, declares=(declaration("q"),))
        rig.run()
        assert rig.log == [
            *("prepare results", "prepare a"),
            *("publish a", "flush", "publish b", "publish c", "flush"),
        ]


def test_what_comes_while_a_receiver_is_prepared_is_prepared_for_by_itself(rig: Rig) -> None:
    rig.results.preparing.hold()
    rig.send_all("ab", receiver=rig.results)
    rig.run()
    rig.send("c", receiver=rig.results)
    rig.results.preparing.release()
    rig.run()
    assert [each for each in rig.log if each != "flush"] == [
        *("prepare results", "prepare a", "publish a", "publish b"),
        *("prepare results", "prepare c", "publish c"),
    ]


def test_a_receiver_that_is_ready_is_not_prepared(rig: Rig) -> None:
    rig.results.is_ready = True
    rig.send("a", receiver=rig.results)
    rig.run()
    assert rig.log == ["publish a", "flush"]


def test_messages_with_receivers_of_their_own_have_each_prepared(rig: Rig) -> None:
    rig.send("a", receiver=rig.results)
    rig.send("b", receiver=rig.replies)
    rig.send("c")
    rig.run()
    assert rig.published == "abc"
    assert [each for each in rig.log if each.startswith("prepare re")] == [
        *("prepare results", "prepare replies")
    ]


def test_a_receiver_that_is_lost_before_the_message_goes_is_prepared_again(rig: Rig) -> None:
    def lose() -> None:
        rig.results.is_ready = False
        rig.publisher.preparing.meanwhile = lambda: None

    rig.results.is_ready = True
    rig.publisher.preparing.meanwhile = lose
    rig.send("a", receiver=rig.results, declares=(declaration("q"),))
    rig.run()
    assert rig.log == ["prepare a", "prepare results", "prepare a", "publish a", "flush"]


def test_what_a_message_requires_is_written_once_however_often_it_goes(rig: Rig) -> None:
    rig.send("a", writes=(write("w"),), retry=PATIENT)
    rig.run()
    rig.publisher.lose()
    rig.run()
    assert rig.published == "aa"
    assert rig.log.count("write w") == 1


def test_what_could_not_be_written_is_written_when_that_can_be_done(rig: Rig) -> None:
    rig.store.writing.fail(NO_STORE)
    rig.send("a", writes=(write("w"),), retry=PATIENT)
    rig.run()
    assert rig.log == ["write w", "write w", "prepare a", "publish a", "flush"]


def test_a_message_that_needs_another_declaration_waits_and_so_do_those_after_it(rig: Rig) -> None:
    rig.publisher.preparing.hold()
    rig.send("a")
    rig.send("b", declares=(declaration("q"),))
    rig.send("c")
    rig.run()
    assert rig.published == "a"
    rig.publisher.preparing.release()
    rig.run()
    assert rig.published == "abc"


# The broker can't be reached.


def test_a_failed_attempt_counts_for_all_that_wait_each_by_its_own_policy() -> None:
    with open_rig() as rig:
        rig.publisher.preparing.fail(*[UNREACHABLE] * 3)
        rig.send("a", retry=twice(1))
        rig.send("b")
        rig.send("c", retry=RetryPolicy(1, 1, 0, 1))
        rig.send("d", retry=PATIENT)
        rig.run()
        assert rig.failed == "b"
        rig.loop.advance(1)
        assert rig.failed == "bc"
        rig.loop.advance(1)
        assert rig.failed == "abc"
        assert str(rig.told["a"].error) == "task a was not sent: can't connect"
        assert type(rig.told["a"].error) is BrokerUnreachable
        assert rig.published == ""
        rig.loop.advance(2)  # d's pause before its third retry
        assert rig.published == "d"


def test_attempts_have_the_pauses_that_the_policy_wants(caplog: pytest.LogCaptureFixture) -> None:
    with open_rig() as rig:
        began = rig.loop.time()
        rig.publisher.preparing.fail(*[UNREACHABLE] * 7)
        rig.send("a", retry=PATIENT, within=100)
        rig.loop.advance(50)
        assert [when - began for when in rig.publisher.preparing.began] == [
            *(0, 0, 1, 3, 6, 10, 15, 20)
        ]
        assert rig.published == "a"
    texts = {(each.levelno, each.getMessage()) for each in caplog.records}
    assert texts == {(logging.WARNING, "Can't send: can't connect. Trying again")}
    assert len(caplog.records) == 7


def test_nothing_is_logged_where_nothing_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with open_rig() as rig:
        rig.publisher.preparing.fail(UNREACHABLE)
        rig.send("a")
        rig.run()
        assert rig.failed == "a"
    assert not caplog.records


def test_one_that_may_not_try_again_does_not_take_the_pause_from_those_behind_it() -> None:
    with open_rig() as rig:
        began = rig.loop.time()
        rig.publisher.preparing.fail(UNREACHABLE, UNREACHABLE)
        rig.send("a")
        rig.send("b", retry=twice(2))
        rig.loop.advance(10)
        assert [when - began for when in rig.publisher.preparing.began] == [0, 2, 4]
        assert rig.failed == "a"
        assert rig.published == "b"


def test_the_pause_of_one_whose_deadline_passes_is_not_for_those_behind_it() -> None:
    with open_rig() as rig:
        rig.publisher.preparing.fail(UNREACHABLE)
        rig.send("a", retry=twice(60), within=5)
        rig.loop.advance(2)
        rig.send("b")
        rig.loop.advance(2)
        assert rig.published == ""
        rig.loop.advance(1)
        assert rig.failed == "a"
        assert rig.published == "b"


def test_one_that_comes_during_a_pause_has_no_attempt_counted_before() -> None:
    with open_rig() as rig:
        rig.publisher.preparing.fail(UNREACHABLE)
        rig.send("a", retry=twice(1))
        rig.run()
        rig.send("b")
        rig.loop.advance(1)
        assert rig.published == "ab"


def test_a_receiver_that_needs_the_broker_counts_like_the_broker(rig: Rig) -> None:
    rig.results.preparing.fail(UNREACHABLE)
    rig.send("a", receiver=rig.results, retry=twice(1))
    rig.send("b")
    rig.run()
    assert rig.failed == "b"
    rig.loop.advance(1)
    assert rig.published == "a"


def test_a_connection_that_is_lost_under_a_declaration_counts_for_those_on_their_way(
    rig: Rig,
) -> None:
    rig.send("a")
    rig.run()
    rig.publisher.preparing.hold()
    rig.publisher.preparing.fail(ConnectionLost("the connection was lost"))
    rig.send("b", declares=(declaration("q"),))
    rig.run()
    rig.publisher.lose()
    rig.publisher.preparing.release()
    rig.run()
    assert rig.failed == "a"
    assert rig.published == "ab"


def test_a_channel_that_is_lost_under_a_declaration_counts(rig: Rig) -> None:
    rig.publisher.preparing.fail(ConnectionLost("no answer in time"))
    rig.send("a", declares=(declaration("q"),))
    rig.run()
    assert str(rig.told["a"].error) == "task a was not sent: no answer in time"
    assert type(rig.told["a"].error) is BrokerUnreachable


# The result backend can't be reached.


def test_those_that_need_the_result_backend_are_put_aside_and_others_go(rig: Rig) -> None:
    rig.results.preparing.fail(NO_STORE)
    rig.send("a", receiver=rig.results, retry=twice(1))
    rig.send("b")
    rig.send("c", writes=(write("w"),), retry=twice(2))
    rig.send("d", receiver=rig.replies)
    rig.send("e", receiver=rig.results)
    rig.run()
    assert rig.published == "bd"
    assert rig.failed == "e"
    assert rig.outbox.queued == 4
    rig.loop.advance(1)
    assert rig.published == "bda"
    rig.loop.advance(1)
    assert rig.published == "bdac"


def test_where_a_write_fails_those_that_need_nothing_of_the_backend_go(rig: Rig) -> None:
    rig.store.writing.fail(NO_STORE)
    rig.send("a", writes=(write("w"),), retry=twice(1))
    rig.send("b")
    rig.send("c", receiver=rig.results)
    rig.run()
    assert rig.published == "bc"
    rig.loop.advance(1)
    assert rig.published == "bca"


def test_one_that_was_put_aside_goes_before_those_that_came_after_it() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.publisher.opened()
        rig.results.preparing.fail(NO_STORE)
        rig.send_all("abc", receiver=rig.results, retry=twice(1))
        rig.send_all("de")
        rig.loop.advance(1)
        assert rig.published == "d"
        for _ in range(4):
            rig.publisher.confirm()
            rig.run()
        assert rig.published == "dabce"


def test_pauses_aside_are_those_of_the_policy(rig: Rig) -> None:
    began = rig.loop.time()
    rig.results.preparing.fail(*[NO_STORE] * 4)
    rig.send("a", receiver=rig.results, retry=PATIENT)
    rig.loop.advance(20)
    assert [when - began for when in rig.results.preparing.began] == [0, 0, 1, 3, 6]
    assert rig.published == "a"


def test_without_retries_left_its_cause_is_the_backends_error(rig: Rig) -> None:
    rig.results.preparing.fail(NO_STORE, NO_STORE)
    rig.send("a", receiver=rig.results, retry=RetryPolicy(1, 1, 0, 1))
    rig.loop.advance(1)
    error = rig.told["a"].error
    assert type(error) is NotSent
    assert str(error) == (
        "task a was not sent, for its result could not be received: can't connect to the store"
    )
    assert error.__cause__ is NO_STORE
    assert error.task_id == "a"


def test_one_that_comes_while_others_are_aside_has_its_own_attempt(rig: Rig) -> None:
    rig.results.preparing.fail(NO_STORE)
    rig.send("a", receiver=rig.results, retry=twice(10))
    rig.run()
    rig.send("b", receiver=rig.results)
    rig.run()
    assert rig.published == "b"
    rig.loop.advance(10)
    assert rig.published == "ba"


@pytest.mark.parametrize("settled_by", ["its result", "its deadline"])
def test_one_that_is_settled_while_it_is_aside_does_not_go(rig: Rig, settled_by: str) -> None:
    rig.results.preparing.fail(NO_STORE)
    rig.send("a", receiver=rig.results, retry=twice(10), within=5)
    rig.run()
    if settled_by == "its result":
        rig.told["a"].complete()
    rig.loop.advance(20)
    assert rig.published == ""
    assert rig.told["a"].confirmed == (settled_by == "its result")


def test_a_call_from_the_callback_of_one_that_fails_goes_after_those_that_wait(rig: Rig) -> None:
    rig.publisher.preparing.hold()
    rig.results.preparing.fail(NO_STORE)
    told = rig.send("a", receiver=rig.results)
    told.then(lambda: rig.send("c"))
    rig.send("b")
    rig.publisher.preparing.release()
    rig.run()
    assert rig.failed == "a"
    assert rig.published == "bc"


# It fails for one alone.


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidOption("queue", "can't be declared"), "queue: can't be declared"),
        (Refused("inequivalent arg", code=406), "task b was not sent: inequivalent arg"),
        (NotSent("odd"), "task b was not sent: odd"),
        (
            BackendRefused("no permission"),
            "task b was not sent, for its result could not be received: no permission",
        ),
        (ZeroDivisionError("odd"), "task b was not sent: unexpected ZeroDivisionError('odd')"),
    ],
)
def test_any_other_error_fails_one_alone_at_once(rig: Rig, error: Exception, told: str) -> None:
    rig.publisher.preparing.fail(error)
    rig.send("a", retry=PATIENT)
    rig.send("b", retry=PATIENT, declares=(declaration("b"),))
    rig.send("c", retry=PATIENT, declares=(declaration("c"),))
    rig.run()
    assert rig.published == "ac"
    assert rig.failed == "b"
    assert str(rig.told["b"].error) == told
    assert isinstance(rig.told["b"].error, BridgetaskError)
    assert getattr(rig.told["b"].error, "code", None) == getattr(error, "code", None)


def test_an_unexpected_error_is_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.publisher.preparing.fail(ZeroDivisionError("odd"))
    rig.send("a", declares=(declaration("q"),))
    rig.run()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


def test_a_receiver_or_a_write_that_is_refused_fails_one_alone(rig: Rig) -> None:
    rig.results.preparing.fail(BackendRefused("no"))
    rig.store.writing.fail(BackendRefused("no"))
    rig.send_all("ab", receiver=rig.results, retry=PATIENT)
    rig.send("c", writes=(write("w"),), retry=PATIENT)
    rig.send("d", writes=(write("w"),), retry=PATIENT)
    rig.run()
    assert rig.failed == "ac"
    assert rig.published == "bd"


# What happens meanwhile.


def test_one_whose_deadline_passes_while_it_is_prepared_is_not_published(rig: Rig) -> None:
    rig.publisher.preparing.hold()
    rig.send("a", declares=(declaration("q"),), within=5)
    rig.send("b")
    rig.loop.advance(5)
    assert isinstance(rig.told["a"].error, SendTimeout)
    rig.publisher.preparing.release()
    rig.run()
    assert rig.published == "b"


def test_an_earlier_message_that_comes_back_meanwhile_goes_first(rig: Rig) -> None:
    rig.send("a", retry=PATIENT)
    rig.run()
    rig.publisher.preparing.hold()
    rig.send("b", declares=(declaration("q"),))
    rig.run()
    rig.publisher.lose()
    rig.publisher.preparing.release()
    rig.run()
    assert rig.published == "aab"


def test_one_that_is_prepared_for_and_done_by_then_is_left_out(rig: Rig) -> None:
    rig.publisher.preparing.hold()
    rig.send("a", declares=(declaration("q"),))
    rig.send("b", declares=(declaration("q"),))
    rig.run()
    rig.told["a"].complete()
    rig.publisher.preparing.release()
    rig.run()
    assert rig.published == "b"


def test_a_receiver_that_is_ready_once_prepared_is_prepared_once(rig: Rig) -> None:
    late = ScriptedReceiver("late", rig.log)
    late.preparing.meanwhile = lambda: setattr(late, "is_ready", True)
    rig.send("a", receiver=late)
    rig.run()
    rig.send("b", receiver=late)
    rig.run()
    assert rig.log.count("prepare late") == 1
    assert rig.published == "ab"
