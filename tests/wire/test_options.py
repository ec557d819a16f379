"""Bad input: each a clear error at the call that names the option, and nothing sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery

from bridgetask import InvalidOption
from bridgetask.wire.recorder import Recorder

from ..recorders import recorder_for


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    celery = Celery("options", broker="amqp://", backend="rpc://", set_as_current=False)
    celery.conf.task_create_missing_queues = False
    return recorder_for(celery, "reply")


def shown(value: Any) -> str:
    """Show a parameter, the same in each process."""
    if isinstance(value, dict):
        return ",".join(f"{name}={type(each).__name__}" for name, each in value.items())
    return repr(value)[:40]


@pytest.mark.parametrize(
    ("call", "option"),
    [
        ({"args": "abc"}, "args"),
        ({"args": {1: 2}}, "args"),
        ({"args": 3}, "args"),
        ({"args": (object(),)}, "args, kwargs"),
        ({"kwargs": [1]}, "kwargs"),
        ({"kwargs": {"x": object()}}, "args, kwargs"),
        ({"countdown": "soon"}, "countdown"),
        ({"countdown": "5"}, "countdown"),
        ({"countdown": -1e20}, "countdown"),
        ({"countdown": 1e20}, "countdown"),
        ({"countdown": float("nan")}, "countdown"),
        ({"countdown": float("inf")}, "countdown"),
        ({"eta": 5}, "eta"),
        ({"expires": [1]}, "expires"),
        ({"expires": 1e20}, "expires"),
        ({"expires": "not a date"}, "expires"),
        ({"task_id": 5}, "task_id"),
        ({"task_id": "x" * 256}, "task_id"),
        ({"reply_to": 5}, "reply_to"),
        ({"routing_key": "ü" * 128}, "routing_key"),
        ({"queue": "missing"}, "queue"),
        ({"queue": 5}, "queue"),
        ({"serializer": "nonsense"}, "serializer"),
        ({"compression": "nonsense"}, "compression"),
        ({"priority": "high"}, "priority"),
        ({"priority": 256}, "priority"),
        ({"delivery_mode": 3}, "delivery_mode"),
        ({"headers": [1]}, "headers"),
        ({"retry_policy": 5}, "retry_policy"),
        ({"retry_policy": {"max_retries": "many"}}, "retry_policy"),
        ({"timeout": "long"}, "timeout"),
        ({"confirm_timeout": "long"}, "confirm_timeout"),
        ({"producer": object()}, "producer"),
        ({"publisher": object()}, "publisher"),
        ({"connection": object()}, "connection"),
        ({"result_cls": dict}, "result_cls"),
    ],
    ids=shown,
)
def test_bad_input_names_the_option(recorder: Recorder, call: dict[str, Any], option: str) -> None:
    options = dict(call)
    with pytest.raises(InvalidOption) as caught:
        recorder.send_task("t", options.pop("args", None), options.pop("kwargs", None), options)
    assert caught.value.option == option
    assert str(caught.value).startswith(f"{option}: ")


@pytest.mark.parametrize("name", [None, 5, b"bytes"])
def test_a_name_that_is_no_string_is_refused(recorder: Recorder, name: Any) -> None:
    with pytest.raises(InvalidOption, match="name: must be a string"):
        recorder.send_task(name, None, None, {})


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 5},
        {"countdown": 0.5},
        {"countdown": -5},
        {"countdown": None},
        {"eta": datetime.now(UTC)},
        {"eta": "2030-01-01T00:00:00"},
        {"expires": 60},
        {"expires": datetime.now()},
        {"expires": "2030-01-01T00:00:00+00:00"},
        {"priority": 5},
        {"delivery_mode": "transient"},
        {"delivery_mode": 1},
        {"queue": None},
        {"shadow": "other"},
        {"made_up": "ignored, as Celery ignores it"},
    ],
    ids=shown,
)
def test_what_celery_takes_is_taken(recorder: Recorder, options: dict[str, Any]) -> None:
    assert recorder.send_task("t", None, None, options).messages


def test_an_error_of_a_setting_names_the_setting() -> None:
    celery = Celery("options", broker="amqp://", set_as_current=False)
    celery.conf.task_serializer = "nonsense"
    with pytest.raises(InvalidOption, match="task_serializer"):
        recorder_for(celery, "reply").send_task("t", None, None, {})


def test_an_error_that_has_nothing_to_do_with_options_is_left_alone() -> None:
    celery = Celery("options", broker="amqp://", set_as_current=False)

    def route(*args: Any, **kwargs: Any) -> None:
        raise ValueError("the router's own")

    celery.conf.task_routes = (route,)
    with pytest.raises(ValueError, match="the router's own") as caught:
        recorder_for(celery, "reply").send_task("t", None, None, {})
    assert not isinstance(caught.value, InvalidOption)


@pytest.mark.parametrize("value", [None, False, ""])
def test_no_compression_means_the_configured_one(recorder: Recorder, value: Any) -> None:
    [usual] = recorder.send_task("t", None, None, {}).messages
    [message] = recorder.send_task("t", None, None, {"compression": value}).messages
    assert message.properties["headers"].keys() == usual.properties["headers"].keys()
