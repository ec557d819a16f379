"""The outbox: deadlines."""

from __future__ import annotations

from bridgetask.errors import (
    BackendUnreachable,
    BrokerUnreachable,
    NotSent,
    SendTimeout,
    Unconfirmed,
)

from .outbox_rig import PATIENT, Rig, declaration, open_rig, rig, twice

__all__ = ["rig"]


def test_one_that_could_not_go_in_time_is_told_so_at_its_deadline(rig: Rig) -> None:
    rig.publisher.preparing.hold()
    rig.send("a", within=5, declares=(declaration("q"),))
    rig.loop.advance(4.75)
    assert rig.pending == "a"
    rig.loop.advance(0.25)
    error = rig.told["a"].error
    assert type(error) is SendTimeout
    assert str(error) == "task a was not sent: the deadline passed before it could be sent"
    assert error.task_id == "a"


def test_one_that_waits_for_room_is_told_so_at_its_deadline() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.publisher.opened()
        rig.send("a")
        rig.send("b", within=5)
        rig.loop.advance(5)
        assert type(rig.told["b"].error) is SendTimeout
        rig.publisher.confirm("a")
        rig.run()
        assert rig.published == "a"


def test_one_whose_attempts_failed_is_told_the_last_error() -> None:
    with open_rig() as rig:
        rig.publisher.preparing.fail(*(BrokerUnreachable(str(number)) for number in range(9)))
        rig.send("a", retry=PATIENT, within=2)
        rig.loop.advance(2)
        error = rig.told["a"].error
        assert type(error) is BrokerUnreachable
        assert str(error) == "task a was not sent: 2"
        assert len(rig.publisher.preparing.began) == 3


def test_one_that_was_lost_and_could_not_go_again_is_unconfirmed(rig: Rig) -> None:
    rig.send("a", retry=PATIENT, within=5)
    rig.run()
    rig.publisher.preparing.hold()
    rig.publisher.lose()
    rig.loop.advance(5)
    error = rig.told["a"].error
    assert type(error) is Unconfirmed
    assert str(error).endswith("no confirm came (the connection was lost)")


def test_one_that_is_on_its_way_is_unconfirmed_and_the_publisher_forgets_it(rig: Rig) -> None:
    rig.send("a", within=5, retry=PATIENT)
    rig.send("b")
    rig.loop.advance(5)
    assert type(rig.told["a"].error) is Unconfirmed
    assert rig.publisher.forgotten == ["a"]
    assert rig.outbox.in_flight == 1
    rig.publisher.lose()
    rig.run()
    assert rig.published == "ab"


def test_one_that_waits_is_not_forgotten_by_the_publisher(rig: Rig) -> None:
    rig.publisher.block()
    rig.send("a", within=5)
    rig.loop.advance(5)
    assert rig.publisher.forgotten == []


def test_the_timeout_of_a_message_counts_where_it_is_shorter_and_only_there(rig: Rig) -> None:
    rig.send("a", within=10, timeout=3)
    rig.send("b", within=10, timeout=30)
    rig.send("c", within=10)
    rig.loop.advance(2.5)
    assert rig.failed == ""
    rig.loop.advance(0.5)
    assert rig.failed == "a"
    rig.loop.advance(6.5)
    assert rig.failed == "a"
    rig.loop.advance(0.5)
    assert rig.failed == "abc"


def test_a_deadline_under_a_blocked_broker_says_why(rig: Rig) -> None:
    rig.send("a", within=5)
    rig.run()
    rig.publisher.block()
    rig.send("b", within=5)
    rig.loop.advance(5)
    for name, kind, start in (
        ("a", Unconfirmed, "task a may or may not have been sent: no confirm came"),
        ("b", SendTimeout, "task b was not sent:"),
    ):
        error = rig.told[name].error
        assert type(error) is kind
        assert str(error).startswith(start)
        assert "the broker is blocked" in str(error)


def test_what_is_answered_and_never_confirmed_makes_room_at_its_deadline() -> None:
    with open_rig(max_in_flight=1) as rig:
        rig.publisher.opened()
        rig.send("a", within=5)
        rig.send("b")
        rig.run()
        rig.told["a"].complete()  # by its result
        rig.loop.advance(4.5)
        assert rig.published == "a"
        rig.loop.advance(0.5)
        assert rig.published == "ab"
        assert rig.publisher.forgotten == ["a"]
        assert rig.confirmed == "a"


def test_what_is_never_confirmed_makes_room_for_one_that_needs_it_all() -> None:
    with open_rig() as rig:
        rig.publisher.opened()
        rig.send("a", within=5)
        rig.send("b", size=rig.publisher.alone)
        rig.loop.advance(5)
        assert rig.published == "ab"


def test_one_that_is_aside_at_its_deadline_is_told_the_backends_error(rig: Rig) -> None:
    error = BackendUnreachable("can't connect")
    rig.results.preparing.fail(error)
    rig.send("a", receiver=rig.results, retry=twice(60), within=5)
    rig.loop.advance(5)
    told = rig.told["a"].error
    assert type(told) is NotSent
    assert told.__cause__ is error


def test_a_deadline_that_has_passed_already_is_kept(rig: Rig) -> None:
    rig.publisher.block()
    rig.send("a", within=-1)
    rig.run()
    assert rig.failed == "a"
