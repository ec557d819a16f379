"""Whether messages were sent: who is told, what hangs on it, and what is logged."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from bridgetask.core.delivery import Delivery, JointDelivery
from bridgetask.core.outcomes import PendingResults
from bridgetask.errors import ClientClosed, NotSent, Unconfirmed

LOST = NotSent("task t was not sent: no")


@pytest.fixture
def pending() -> PendingResults:
    return PendingResults()


def test_one_that_is_lost_and_that_nobody_asked_for_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    delivery = Delivery("add[t]")
    delivery.complete(LOST)
    del delivery
    gc.collect()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "Task add[t] was not sent, and nobody asked: task t was not sent: no"
    )


async def test_one_that_somebody_waits_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Delivery("add[t]")
    waiting = asyncio.create_task(delivery.wait())
    await asyncio.sleep(0)
    delivery.complete(LOST)
    with pytest.raises(NotSent):
        await waiting
    del delivery, waiting
    gc.collect()
    assert not caplog.records


async def test_while_a_handle_is_held_its_holder_may_still_ask(
    pending: PendingResults, caplog: pytest.LogCaptureFixture
) -> None:
    delivery, outcome = Delivery("add[t]"), pending.begin("t")
    delivery.carry(outcome)
    delivery.complete(LOST)
    assert not caplog.records
    with pytest.raises(NotSent):
        await outcome.wait()
    del delivery, outcome
    gc.collect()
    assert not caplog.records


def test_it_is_logged_when_the_last_handle_is_dropped(
    pending: PendingResults, caplog: pytest.LogCaptureFixture
) -> None:
    delivery, outcome = Delivery("add[t]"), pending.begin("t")
    delivery.carry(outcome)
    delivery.complete(LOST)
    del delivery
    assert not caplog.records
    del outcome
    gc.collect()
    assert len(caplog.records) == 1


def test_one_that_was_confirmed_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Delivery("add[t]")
    delivery.complete()
    del delivery
    gc.collect()
    assert not caplog.records


def test_a_result_corrects_what_was_unconfirmed(
    pending: PendingResults, caplog: pytest.LogCaptureFixture
) -> None:
    outcome, delivery = pending.begin("t"), Delivery("add[t]")
    delivery.carry(outcome)
    delivery.complete(Unconfirmed("it may or may not have been sent"))
    delivery.complete()
    del delivery, outcome
    gc.collect()
    assert not caplog.records


def test_if_it_fails_so_do_the_outcomes_that_hang_on_it_and_no_others(
    pending: PendingResults,
) -> None:
    delivery, other = Delivery("add[t]"), Delivery("add[u]")
    first, second, third = (pending.begin(task_id) for task_id in "tuv")
    delivery.carry(first)
    delivery.carry(second)
    other.carry(third)
    other.carry(second)  # it was sent again
    delivery.complete(LOST)
    assert first.error is LOST
    assert not second.done
    assert not third.done


def test_what_follows_a_publish_is_called_once_before_those_who_wait_are_told() -> None:
    told: list[str] = []
    delivery = Delivery("add[t]", [lambda: told.append("signal"), lambda: told.append("event")])
    delivery.then(lambda: told.append("done"))
    delivery.complete()
    delivery.complete()
    assert told == ["signal", "event", "done"]


def test_what_follows_a_publish_does_not_follow_a_failure() -> None:
    told: list[str] = []
    delivery = Delivery("add[t]", [lambda: told.append("signal")])
    delivery.raised = True
    delivery.complete(LOST)
    assert told == []


def test_what_follows_a_publish_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def fails() -> None:
        raise RuntimeError("receiver")

    delivery = Delivery("add[t]", [fails, lambda: told.append("event")])
    delivery.complete()
    assert told == ["event"]
    assert delivery.error is None
    (record,) = caplog.records
    assert "failed after a message was published" in record.getMessage()


# Several messages.


def test_a_joint_one_is_done_when_all_that_joined_are_and_no_more_can() -> None:
    joint, first, second = JointDelivery("group"), Delivery("a"), Delivery("b")
    joint.join(first)
    first.complete()
    assert not joint.done  # more may join
    joint.join(second)
    joint.close()
    assert not joint.done
    second.complete()
    assert joint.done
    assert joint.error is None


def test_a_joint_one_without_any_message_is_done_when_no_more_can_join() -> None:
    joint = JointDelivery("group")
    joint.close()
    assert joint.done


def test_a_joint_one_fails_with_the_first_that_does(caplog: pytest.LogCaptureFixture) -> None:
    joint, first, second = JointDelivery("group"), Delivery("a"), Delivery("b")
    for each in (first, second):
        joint.join(each)
        each.raised = True
    joint.close()
    second.complete(LOST)
    first.complete(ClientClosed("later"))
    assert joint.error is LOST
    del joint
    gc.collect()
    assert not caplog.records  # that is left to the messages themselves


def test_a_joint_one_that_is_closed_with_an_error_fails() -> None:
    joint, first = JointDelivery("group"), Delivery("a")
    joint.join(first)
    error = ClientClosed("the client was closed before all members were sent")
    joint.close(error)
    assert joint.error is error
