"""What waits for a confirm, by delivery tag. No server, no event loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.transports.amqp.confirms import ConfirmWindow


@pytest.fixture(autouse=True)
def amqp_path() -> None:
    """Neither way: this is the direct one's, and has no connection."""


def window_of(names: str) -> ConfirmWindow[str]:
    window: ConfirmWindow[str] = ConfirmWindow()
    for name in names:
        window.add(name)
    return window


def test_a_confirm_is_about_one_or_about_all_up_to_one() -> None:
    window = window_of("abcde")
    assert window.take(1, multiple=False) == ["a"]
    assert window.take(3, multiple=True) == ["b", "c"]
    assert window.take(5, multiple=True) == ["d", "e"]
    assert len(window) == 0


def test_confirms_need_not_come_in_order() -> None:
    window = window_of("abcde")
    assert window.take(4, multiple=False) == ["d"]
    assert window.take(2, multiple=False) == ["b"]
    assert len(window) == 5
    assert window.take(1, multiple=False) == ["a"]
    assert len(window) == 3
    assert window.take(5, multiple=True) == ["c", "e"]
    window.add("f")
    assert window.take(6, multiple=False) == ["f"]


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("tag", [0, 1, 4, 2**63])
def test_a_confirm_of_what_does_not_wait_takes_nothing(tag: int, multiple: bool) -> None:
    window = window_of("abc")
    window.take(1, multiple=False)
    with pytest.raises(LookupError, match=f"delivery tag {tag}, while 2 wait from 2 on"):
        window.take(tag, multiple=multiple)
    assert window.take_all() == ["b", "c"]


def test_nothing_is_confirmed_twice() -> None:
    window = window_of("abc")
    assert window.take(2, multiple=False) == ["b"]
    assert window.take(2, multiple=False) == []
    assert window.take(3, multiple=True) == ["a", "c"]


def test_what_is_discarded_leaves_its_tag_behind() -> None:
    window = window_of("abc")
    window.discard("a")
    window.discard("unknown")
    assert window.take(1, multiple=False) == []
    window.discard("c")
    assert window.take(3, multiple=True) == ["b"]


def test_the_first_that_matches_is_taken() -> None:
    window = window_of("abab")
    assert window.take_first(lambda name: name == "b") == "b"
    assert window.take(2, multiple=False) == []
    assert window.take_first(lambda name: name == "b") == "b"
    assert window.take_first(lambda name: name == "b") is None
    assert window.take(4, multiple=True) == ["a", "a"]


def test_all_that_is_left_comes_in_order() -> None:
    window = window_of("abcd")
    window.take(2, multiple=False)
    window.discard("c")
    assert window.take_all() == ["a", "d"]
    assert window.take_all() == []


#: How many are published, and which tag is then confirmed how, counted back from the newest.
steps = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 9), st.booleans()), max_size=30)


@given(steps)
def test_it_keeps_account_as_a_dictionary_would(taken: list[tuple[int, int, bool]]) -> None:
    window: ConfirmWindow[int] = ConfirmWindow()
    waiting: dict[int, int] = {}
    newest = 0
    for count, back, multiple in taken:
        for _ in range(count):
            newest += 1
            window.add(newest)
            waiting[newest] = newest
        tag = newest - back
        confirmed = [each for each in waiting if each == tag or (multiple and each <= tag)]
        try:
            assert window.take(tag, multiple) == confirmed
        except LookupError:
            assert tag not in waiting
            continue
        for each in confirmed:
            del waiting[each]
    assert window.take_all() == list(waiting)
