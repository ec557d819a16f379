"""The arguments of a call are shown as Celery shows them."""

from __future__ import annotations

from typing import Any

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.wire.plain_repr import plain_repr

from ..fix_rabbitmq import make_app
from ..recorders import recorder_for

items = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60) | st.binary()
arguments = (
    st.lists(items, max_size=6)
    | st.lists(items, max_size=6).map(tuple)
    | st.dictionaries(st.text(max_size=10) | st.integers(), items, max_size=4)
)


@given(arguments, st.sampled_from([200, 1024]), st.sampled_from([None, 1, 3]))
def test_plain_arguments_are_shown_as_celery_shows_them(
    value: Any, maxsize: int, levels: int | None
) -> None:
    shown = plain_repr(value)
    assert shown is None or shown == saferepr(value, maxsize, maxlevels=levels)


@pytest.mark.parametrize("value", [(1, "it's", None, True, 0.5), [], (), {}, (1,), {"k": "v"}])
def test_the_arguments_of_most_calls_are_plain(value: Any) -> None:
    assert plain_repr(value) == saferepr(value, 1024)


@pytest.mark.parametrize(
    "value", [([1],), {"k": {}}, {1: 2}, (b"x",), ("x" * 300,), tuple(range(100)), {1, 2}, "text"]
)
def test_all_others_are_left_to_celery(value: Any) -> None:
    assert plain_repr(value) is None


@pytest.mark.parametrize(
    "options", [{"argsrepr": "(hidden)", "kwargsrepr": "{hidden}"}, {"argsrepr": "(hidden)"}, {}]
)
def test_what_a_caller_gives_to_be_shown_is_shown(options: dict[str, Any]) -> None:
    recorder = recorder_for(make_app("shown", "amqp://127.0.0.1:1//"), "replies")
    (message,) = recorder.send_task("name", (1,), {"k": 2}, options).messages
    headers = message.properties["headers"]
    assert headers["argsrepr"] == options.get("argsrepr", "(1,)")
    assert headers["kwargsrepr"] == options.get("kwargsrepr", "{'k': 2}")


def test_a_size_that_the_app_has_set_is_kept_to() -> None:
    celery = make_app("sized", "amqp://127.0.0.1:1//")
    celery.amqp.argsrepr_maxsize = 5
    (message,) = recorder_for(celery, "replies").send_task("name", (1, 2, 3, 4), {}, {}).messages
    assert message.properties["headers"]["argsrepr"] == saferepr((1, 2, 3, 4), 5)
