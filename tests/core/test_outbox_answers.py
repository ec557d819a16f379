"""The outbox: what becomes of messages that were published."""

from __future__ import annotations

import pytest

from bridgetask.core.publishing import ConnectionLost
from bridgetask.errors import (
    BrokerUnreachable,
    InvalidOption,
    NotRoutable,
    NotSent,
    Refused,
    Unconfirmed,
)
from bridgetask.retry import RetryPolicy

from .outbox_rig import PATIENT, Rig, declaration, open_rig, rig, twice

__all__ = ["rig"]

ONCE = RetryPolicy(1, 0, 0, 0)


@pytest.mark.parametrize("error", [Refused("not accepted"), NotRoutable("NO_ROUTE")])
def test_a_nack_and_a_return_are_final_whatever_the_policy(rig: Rig, error: NotSent) -> None:
    rig.send_all("abc", retry=PATIENT)
    rig.run()
    rig.publisher.answer("b", error)
    rig.publisher.confirm()
    rig.run()
    told = rig.told["b"].error
    assert type(told) is type(error)
    assert str(told) == f"task b was not sent: {error}"
    assert told.task_id == "b"  # type: ignore[union-attr]
    assert rig.published == "abc"
    assert rig.confirmed == "ac"


def test_an_error_keeps_its_code_and_its_cause(rig: Rig) -> None:
    error = Refused("not accepted", code=311)
    error.__cause__ = OSError("underneath")
    rig.send("a")
    rig.run()
    rig.publisher.answer("a", error)
    told = rig.told["a"].error
    assert isinstance(told, Refused)
    assert told.code == 311
    assert told.__cause__ is error.__cause__


# The connection is lost.


def test_what_was_on_its_way_goes_again_before_what_came_after_it() -> None:
    with open_rig(max_in_flight=3) as rig:
        rig.publisher.opened()
        rig.send_all("abcde", retry=PATIENT)
        rig.run()
        rig.publisher.confirm("b")
        rig.run()
        assert rig.published == "abcd"
        rig.publisher.lose()
        rig.publisher.opened()
        rig.run()
        assert rig.published == "abcd" + "acd"
        for _ in "ae":
            rig.publisher.confirm()
            rig.run()
        assert rig.published == "abcd" + "acd" + "e"
        assert rig.confirmed == "abcde"


def test_what_is_lost_in_any_order_goes_again_in_its_own(rig: Rig) -> None:
    rig.send_all("abcd", retry=PATIENT)
    rig.run()
    for name in "cadb":
        rig.publisher.answer(name, ConnectionLost("the connection was lost"))
    rig.run()
    assert rig.published == "abcd" + "abcd"


def test_the_publisher_is_prepared_again_after_a_loss(rig: Rig) -> None:
    rig.send("a", retry=PATIENT, declares=(declaration("q"),))
    rig.run()
    rig.publisher.lose()
    rig.run()
    assert [each for each in rig.log if each != "flush"] == ["prepare a", "publish a"] * 2


def test_each_loss_counts_as_a_retry_of_those_that_were_on_their_way() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.publisher.opened()
        rig.send_all("ab", retry=ONCE)
        rig.run()
        rig.publisher.lose()
        rig.run()
        assert rig.published == "aa"
        rig.publisher.lose()
        rig.run()
        assert rig.published == "aab"
        assert rig.failed == "a"
        rig.publisher.lose()
        rig.run()
        assert rig.published == "aabb"  # b has lost nothing by what became of a


def test_without_a_retry_what_was_lost_is_unconfirmed(rig: Rig) -> None:
    rig.send_all("ab")
    rig.run()
    lost = ConnectionLost("the connection was lost")
    lost.__cause__ = OSError("reset")
    rig.publisher.lose(lost)
    for name in "ab":
        error = rig.told[name].error
        assert type(error) is Unconfirmed
        assert error.task_id == name
        assert str(error) == (
            f"task {name} may or may not have been sent: no confirm came (the connection was lost)"
        )
        assert error.__cause__ is lost.__cause__
    rig.run()
    assert rig.published == "ab"


def test_an_outcome_that_the_publisher_does_not_know_is_treated_like_a_loss(rig: Rig) -> None:
    rig.send("a", retry=ONCE)
    rig.send("b")
    rig.run()
    for name in "ab":
        rig.publisher.answer(name, Unconfirmed("unexpected"))
    rig.run()
    assert rig.published == "aba"
    assert type(rig.told["b"].error) is Unconfirmed
    rig.publisher.confirm("a")
    assert rig.confirmed == "a"


def test_the_retries_of_a_loss_and_of_connecting_again_are_counted_together(rig: Rig) -> None:
    rig.send("a", retry=twice(1))
    rig.run()
    rig.publisher.preparing.fail(BrokerUnreachable("can't connect"), BrokerUnreachable("still"))
    rig.publisher.lose()
    rig.loop.advance(1)
    assert rig.published == "a"
    error = rig.told["a"].error
    assert type(error) is Unconfirmed
    assert str(error).endswith("no confirm came (still)")


@pytest.mark.parametrize(
    "refusal", [NotRoutable("NO_ROUTE"), Refused("not accepted"), NotSent("no")]
)
def test_a_refusal_after_an_attempt_without_an_answer_is_unconfirmed(
    rig: Rig, refusal: NotSent
) -> None:
    rig.send("a", retry=PATIENT)
    rig.run()
    rig.publisher.lose()
    rig.run()
    assert rig.published == "aa"
    rig.publisher.answer("a", refusal)
    error = rig.told["a"].error
    assert type(error) is Unconfirmed
    assert str(error).endswith(f"no confirm came ({refusal})")


@pytest.mark.parametrize("step", ["preparing", "publishing"])
def test_an_option_that_is_invalid_after_an_attempt_without_an_answer_is_unconfirmed(
    rig: Rig, step: str
) -> None:
    rig.send("a", retry=PATIENT)
    rig.run()
    error = InvalidOption("headers", "larger than the frames of this server")
    if step == "preparing":
        rig.publisher.preparing.fail(error)
    else:
        rig.publisher.unpublishable["a"] = error
    rig.publisher.lose()
    rig.run()
    told = rig.told["a"].error
    assert type(told) is Unconfirmed
    assert told.__cause__ is error
    assert told.task_id == "a"


def test_a_confirm_after_an_attempt_without_an_answer_counts(rig: Rig) -> None:
    rig.send("a", retry=PATIENT)
    rig.run()
    rig.publisher.lose()
    rig.run()
    rig.publisher.confirm()
    assert rig.confirmed == "a"


# The broker closes the channel over a message.


def go_one_by_one(rig: Rig, names: str, guilty: str) -> None:
    """Answer messages that go one at a time; close the channel over those that are guilty."""
    for name in names:
        assert [each.message.task_id for each in rig.publisher.on_their_way] == [name]
        if name in guilty:
            rig.publisher.refuse_by_closing()
        else:
            rig.publisher.confirm()
        rig.run()


def test_a_closed_channel_is_laid_to_the_one_it_was_closed_over(rig: Rig) -> None:
    rig.send_all("abcd", retry=PATIENT)
    rig.run()
    rig.publisher.confirm("a")
    rig.send_all("ef", retry=PATIENT)
    rig.publisher.refuse_by_closing()
    rig.run()
    assert rig.published == "abcd" + "b"
    go_one_by_one(rig, "bcd", guilty="c")
    assert rig.published == "abcd" + "bcd" + "ef"
    rig.publisher.confirm()
    assert rig.confirmed == "abdef"
    error = rig.told["c"].error
    assert type(error) is Refused
    assert error.code == 404
    assert str(error) == "task c was not sent: no such exchange"


def test_every_one_that_the_channel_is_closed_over_fails_alone(rig: Rig) -> None:
    rig.send_all("abcdef", retry=PATIENT)
    rig.run()
    rig.publisher.refuse_by_closing()
    rig.run()
    go_one_by_one(rig, "abcdef", guilty="aef")
    assert rig.published == "abcdef" * 2
    assert rig.failed == "aef"
    assert rig.confirmed == "bcd"
    assert all(type(rig.told[name].error) is Refused for name in "aef")


def test_what_comes_after_one_by_one_goes_together_again(rig: Rig) -> None:
    rig.send_all("ab", retry=PATIENT)
    rig.run()
    rig.publisher.refuse_by_closing()
    rig.run()
    go_one_by_one(rig, "ab", guilty="")
    rig.log.clear()
    rig.send_all("cd", retry=PATIENT)
    rig.run()
    assert rig.log == ["publish c", "publish d", "flush"]


def test_going_one_by_one_is_no_retry(rig: Rig) -> None:
    rig.send_all("ab", retry=ONCE)
    rig.run()
    rig.publisher.refuse_by_closing()
    rig.run()
    rig.publisher.lose()
    rig.run()
    assert rig.published == "ab" + "aa"
    go_one_by_one(rig, "ab", guilty="")
    assert rig.confirmed == "ab"


def test_without_a_retry_those_that_a_channel_was_closed_under_are_unconfirmed(rig: Rig) -> None:
    rig.send("a")
    rig.send("b", retry=PATIENT)
    rig.run()
    rig.publisher.refuse_by_closing()
    rig.run()
    assert type(rig.told["a"].error) is Unconfirmed
    assert rig.published == "abb"


def test_a_very_large_one_that_the_channel_is_closed_over_is_not_sent_again(rig: Rig) -> None:
    rig.send("a", size=rig.publisher.alone, retry=PATIENT)
    rig.send("b")
    rig.run()
    rig.publisher.refuse_by_closing()
    rig.run()
    assert rig.published == "ab"
    assert type(rig.told["a"].error) is Refused


def test_one_that_was_lost_before_it_was_refused_alone_is_refused(rig: Rig) -> None:
    rig.send("a", retry=PATIENT)
    rig.run()
    rig.publisher.lose()
    rig.run()
    rig.publisher.refuse_by_closing()
    rig.run()
    rig.publisher.refuse_by_closing()
    assert type(rig.told["a"].error) is Refused  # its first attempt was refused as well


# The result is there before the confirm.


def test_a_result_settles_a_message_and_its_confirm_changes_nothing(rig: Rig) -> None:
    rig.send("a")
    rig.run()
    rig.told["a"].complete()
    rig.publisher.confirm()
    assert rig.outbox.in_flight == 0


@pytest.mark.parametrize("how", ["lost", "closed over", "refused"])
def test_one_whose_result_is_there_is_not_sent_again(rig: Rig, how: str) -> None:
    rig.send_all("ab", retry=PATIENT)
    rig.run()
    rig.told["a"].complete()
    if how == "lost":
        rig.publisher.lose()
    elif how == "closed over":
        rig.publisher.refuse_by_closing()
    else:
        rig.publisher.answer("a", Refused("no"))
        rig.publisher.answer("b", ConnectionLost("no"))
    rig.run()
    assert rig.published == "ab" + "b"
    assert rig.confirmed == "a"


def test_the_loss_of_one_whose_result_is_there_makes_room(rig: Rig) -> None:
    rig.send("a", retry=PATIENT)
    rig.send("b", size=rig.publisher.alone, retry=PATIENT)
    rig.run()
    rig.told["a"].complete()
    rig.publisher.lose()
    rig.run()
    assert rig.published == "ab"


def test_one_whose_result_comes_while_it_waits_to_go_again_does_not(rig: Rig) -> None:
    rig.send_all("ab", retry=PATIENT)
    rig.run()
    rig.publisher.preparing.hold()
    rig.publisher.lose()
    rig.run()
    rig.told["a"].complete()
    rig.publisher.preparing.release()
    rig.run()
    assert rig.published == "ab" + "b"
