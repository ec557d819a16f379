"""Whatever is changed between two calls counts in the next message as it does in Celery's own.

Here "Celery's own" is the app's own code, with messages recorded by the same producer: so all of a
message is compared, with its declarations and its retry policy. ``differential/test_changes.py``
compares what arrives in RabbitMQ.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.utils.collections import ConfigurationView

from bridgetask.wire.message import OutgoingMessage
from bridgetask.wire.producer import RecordingChannel, RecordingProducer
from bridgetask.wire.recorder import Recorder

from ..changes import CALLS, CHANGES, IRRELEVANT, base_settings, register_tasks
from ..recorders import recorder_for

#: How often a kind of call is made before it comes from a template.
LEARNING = 2

Send = Callable[[], list[Any]]


def make_app() -> Celery:
    app = Celery(
        "changes", broker="amqp://127.0.0.1:1//", backend="disabled://", set_as_current=False
    )
    app.conf.update(base_settings("default"))
    register_tasks(app)
    return app


def by_celery(app: Celery, call: Callable[[Any, Celery], Any]) -> Send:
    """Return what makes a call by the app itself, and returns the messages."""
    messages: list[OutgoingMessage] = []
    producer = RecordingProducer(app.connection_for_write(), RecordingChannel(), messages.append)

    def send_task(name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return app.send_task(name, args, kwargs, task_id="id", producer=producer, **options)

    def apply_async(task: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return task.apply_async(args, kwargs, task_id="id", producer=producer, **options)

    def send() -> list[Any]:
        messages.clear()
        call(SimpleNamespace(send_task=send_task, apply_async=apply_async), app)
        return [comparable(each) for each in messages]

    return send


def by_recorder(app: Celery, recorder: Recorder, call: Callable[[Any, Celery], Any]) -> Send:
    """Return what makes a call by a recorder, and returns the messages."""

    def send_task(name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return recorder.send_task(name, args, kwargs, {"task_id": "id", **options})

    def apply_async(task: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return recorder.apply_async(task, args, kwargs, {"task_id": "id", **options})

    client = SimpleNamespace(send_task=send_task, apply_async=apply_async)
    return lambda: [comparable(each) for each in call(client, app).messages]


def comparable(message: OutgoingMessage) -> Any:
    """Return what must be the same: all of a task's message; that there is one, of an event."""
    if "task" not in message.properties["headers"] and b'"task"' not in message.body:
        return message.exchange, message.routing_key
    return (
        message.exchange,
        message.routing_key,
        message.body,
        list(message.properties.items()),
        list(message.properties["headers"].items()),
        message.declarations,
        message.retry,
        message.timeout,
    )


def outcome(send: Send) -> Any:
    """Return the messages, or the error."""
    try:
        return send()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.filterwarnings("ignore:.*task_always_eager", "ignore::DeprecationWarning")
def test_what_changes_counts_as_it_does_in_celery(what: str) -> None:
    changed = []
    for call in CALLS:
        app = make_app()
        recorder = recorder_for(app, app.thread_oid, clock=lambda: 0.0)
        theirs, ours = by_celery(app, CALLS[call]), by_recorder(app, recorder, CALLS[call])
        before = theirs()
        for _ in range(LEARNING + 1):
            assert ours() == before
        assert len(recorder.templates.in_use) == 1
        CHANGES[what].make(app)
        after = outcome(theirs)
        for _ in range(LEARNING + 2):
            assert outcome(ours) == after, call
        if after != before:
            changed.append(call)
    assert bool(changed) == CHANGES[what].counts, changed


def test_there_is_a_change_of_every_setting_that_celery_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: set[str] = set()
    get = ConfigurationView.__getitem__

    def noted(self: ConfigurationView, name: str) -> Any:
        read.add(name)
        return get(self, name)

    monkeypatch.setattr(ConfigurationView, "__getitem__", noted)
    app = make_app()
    for call in CALLS.values():
        assert by_celery(app, call)()
    monkeypatch.undo()
    changed = {name for change in CHANGES.values() for name in change.settings}
    assert [name for name in read - changed if not IRRELEVANT.fullmatch(name)] == []
