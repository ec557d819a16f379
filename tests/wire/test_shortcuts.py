"""Shorter ways to what Celery comes to: they come to the same."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from celery.utils.saferepr import saferepr
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.wire.shortcuts import ConfigurationView, plain_repr

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


def configured(**options: Any) -> Celery:
    celery = Celery("view", broker="amqp://127.0.0.1:1//", set_as_current=False)
    celery.config_from_object(options.pop("source", {}), **options)
    return celery


@pytest.mark.parametrize(
    "celery",
    [
        configured(),
        configured(source={"task_default_queue": "q", "task_ignore_result": True}),
        configured(source={"CELERY_DEFAULT_QUEUE": "q", "CELERY_IGNORE_RESULT": True}),
        configured(source={"X_TASK_DEFAULT_QUEUE": "q"}, namespace="X"),
        configured(source=type("Config", (), {"task_default_queue": "q"})),
    ],
    ids=["defaults", "new names", "old names", "namespace", "object"],
)
def test_the_configuration_reads_the_same_and_follows_changes(celery: Celery) -> None:
    view = ConfigurationView(celery)
    names = [name for name, _ in flatten(NAMESPACES)]
    for _ in range(2):
        for name in names:
            assert getattr(view, name) == getattr(celery.conf, name)
        celery.conf.task_default_queue = "changed"
        celery.conf.update(task_send_sent_event=True)
        celery.add_defaults({"task_track_started": True})
    assert celery.conf.changes["task_default_queue"] == "changed"
    assert view.task_send_sent_event is True


def test_the_view_of_the_configuration_is_the_apps_in_all_else() -> None:
    celery = configured()
    view = ConfigurationView(celery)
    with pytest.raises(AttributeError):
        view.no_such_setting  # noqa: B018
    view.task_default_queue = "by attribute"
    assert celery.conf.task_default_queue == view["task_default_queue"] == "by attribute"
    view["task_default_queue"] = "by item"
    assert celery.conf.task_default_queue == "by item"
    del view["task_default_queue"]
    assert view.task_default_queue == celery.conf.task_default_queue == "celery"
    assert set(view) == set(celery.conf)
    assert len(view) == len(celery.conf)
    assert view.humanize() == celery.conf.humanize()
