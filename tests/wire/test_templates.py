"""What is made from a template is what Celery would make of the call, now.

That it is the same to the byte is held by ``differential``, which makes each call three times.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import kombu
import kombu.serialization
import pytest
from celery import Celery, group, signals
from celery.app.routes import MapRoute
from kombu import Queue

from bridgetask.wire.message import OutgoingMessage
from bridgetask.wire.recorder import Recorder

from ..recorders import recorder_for

#: How often a kind of call is made before it comes from a template.
LEARNING = 2


@pytest.fixture
def app() -> Celery:
    return Celery(
        "templates", broker="amqp://127.0.0.1:1//", backend="rpc://", set_as_current=False
    )


def make_recorder(app: Celery) -> Recorder:
    """Return a recorder for which no time passes: it compares no template for having been idle."""
    return recorder_for(app, "reply", clock=lambda: 0.0)


@pytest.fixture
def recorder(app: Celery) -> Recorder:
    return make_recorder(app)


def headers(message: OutgoingMessage) -> dict[str, Any]:
    found: dict[str, Any] = message.properties["headers"]
    return found


def send(recorder: Recorder, name: str = "t", **options: Any) -> OutgoingMessage:
    (message,) = recorder.send_task(name, (1,), None, options).messages
    return message


def learned(recorder: Recorder, make: Callable[[], OutgoingMessage]) -> OutgoingMessage:
    """Make a call until there is a template for it."""
    for _ in range(LEARNING):
        message = make()
    assert len(recorder.templates.in_use) == 1
    return message


def test_ids_and_arguments_are_those_of_the_call(recorder: Recorder) -> None:
    for number in range(LEARNING + 2):
        call = recorder.send_task("t", (number, "x"), {"k": None}, {"task_id": f"id-{number}"})
        (message,) = call.messages
        assert call.result.id == message.task_id == f"id-{number}"
        assert headers(message)["id"] == headers(message)["root_id"] == f"id-{number}"
        assert headers(message)["argsrepr"] == f"({number}, 'x')"
        assert headers(message)["kwargsrepr"] == "{'k': None}"
        assert message.properties["correlation_id"] == f"id-{number}"
        assert message.body.startswith(f'[[{number}, "x"], {{"k": null}}, '.encode())
    assert len(recorder.templates.in_use) == 1


def test_two_messages_share_nothing_that_can_be_changed(recorder: Recorder) -> None:
    learned(recorder, lambda: send(recorder))
    one, other = send(recorder), send(recorder)
    headers(one)["added"] = one.properties["added"] = "by somebody"
    assert "added" not in headers(other) | other.properties
    assert "added" not in headers(send(recorder))


def test_members_of_a_group_are_of_one_kind(app: Celery, recorder: Recorder) -> None:
    @app.task(name="member", shared=False)
    def member(number: int) -> None: ...

    made = group([member.s(number) for number in range(6)])
    messages = recorder.apply_async(made, None, None, {}).messages
    assert len(recorder.templates.in_use) == 1
    assert [headers(each)["group_index"] for each in messages] == list(range(6))
    assert len({headers(each)["group"] for each in messages}) == 1
    assert [headers(each)["argsrepr"] for each in messages] == [f"({n},)" for n in range(6)]


def double(x: int) -> int:
    return 2 * x


def add_code_router(app: Celery) -> None:
    app.amqp.router.routes.insert(0, lambda name, *_, **__: {"queue": "by code"})


def register(app: Celery) -> None:
    app.task(name="t", shared=False, serializer="yaml")(double)
    app.finalize()


def change_options(app: Celery) -> None:
    app.tasks["registered"].serializer = "yaml"
    app.tasks["registered"]._exec_options = None


def use_protocol_1(app: Celery) -> None:
    app.amqp.create_task_message = app.amqp.as_task_v1


def replace_queue(app: Celery) -> None:
    app.amqp.queues["q"] = Queue("q", kombu.Exchange("x", "topic"), "key")


#: What may change between two calls, and a call that it makes a difference to.
CHANGES: dict[str, tuple[Callable[[Celery], object], str, dict[str, Any]]] = {
    "setting": (lambda app: app.conf.update(task_default_queue="other"), "t", {}),
    "events": (lambda app: app.conf.update(task_send_sent_event=True), "t", {}),
    "eager": (lambda app: app.conf.update(task_always_eager=True), "t", {}),
    "queue": (replace_queue, "t", {"queue": "q"}),
    "route": (lambda app: app.conf.task_routes["routed"].update(queue="new"), "routed", {}),
    "router": (add_code_router, "t", {}),
    "map": (lambda app: app.amqp.router.routes.insert(0, MapRoute({"*": "new"})), "t", {}),
    "protocol": (
        lambda app: setattr(app.amqp, "create_task_message", app.amqp.as_task_v1),
        "t",
        {},
    ),
    "shown": (lambda app: setattr(app.amqp, "argsrepr_maxsize", 4), "t", {}),
    "registered": (register, "t", {}),
    "own options": (change_options, "registered", {}),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.filterwarnings("ignore:.*task_always_eager")
def test_what_changes_counts_from_the_next_call(app: Celery, what: str) -> None:
    """A recorder that has no templates yet shows what Celery makes of the call."""
    change, name, options = CHANGES[what]
    app.conf.task_routes = {"routed": {"queue": "old"}}
    app.task(name="registered", shared=False)(double)
    app.finalize()
    recorder = make_recorder(app)

    def send(by: Recorder) -> list[OutgoingMessage]:
        made = {**options, "task_id": "the id"}
        return by.send_task(name, (123456,), None, made).messages

    before = [send(recorder) for _ in range(LEARNING + 1)][-1]
    assert len(recorder.templates.in_use) == 1
    change(app)
    after = send(make_recorder(app))
    for _ in range(LEARNING + 2):
        messages = send(recorder)
        assert messages[0] == after[0]
        assert len(messages) == len(after)  # an event follows
    # What these change is not in the message, or, up to Celery 5.5, only in a task's own calls.
    assert before[0] != after[0] or what in ("events", "eager", "registered", "own options")


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 5},
        {"eta": "2030-01-01T00:00:00"},
        {"expires": 5},
        {"headers": {"a": 1}},
        {"link": {"task": "linked", "args": [], "kwargs": {}, "options": {}}},
        {"retry_policy": {"max_retries": 1}},
        {"queue": Queue("own")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_out_of_the_ordinary_has_no_template(
    recorder: Recorder, options: dict[str, Any]
) -> None:
    for _ in range(LEARNING + 1):
        send(recorder, **options)
    assert len(recorder.templates.in_use) == 0


@pytest.mark.parametrize(
    "value",
    [[1], {"a": [2]}, "x" * 300, b"bytes", 1j, [[[[[1]]]]], ["y" * 99] * 99],
    ids=lambda value: repr(value)[:10],
)
def test_arguments_are_shown_as_celery_shows_them(recorder: Recorder, value: Any) -> None:
    options = {"task_id": "the id", "serializer": "pickle"}

    def call(by: Recorder, value: Any) -> OutgoingMessage:
        return by.send_task("t", (value,), {"k": value}, dict(options)).messages[0]

    for plain in range(LEARNING):
        call(recorder, plain)
    assert call(recorder, value) == call(make_recorder(recorder.app), value)
    assert len(recorder.templates.in_use) == 1


def test_a_queue_that_a_route_brings_along_has_no_template(app: Celery) -> None:
    app.conf.task_routes = {"t": {"queue": Queue("brought along")}}
    recorder = make_recorder(app)
    assert [send(recorder).routing_key for _ in range(LEARNING + 2)] == ["brought along"] * 4
    assert len(recorder.templates.in_use) == 0


@pytest.mark.parametrize("signal", ["before_task_publish", "after_task_publish", "task_sent"])
def test_a_receiver_gets_its_signal_from_the_next_call(recorder: Recorder, signal: str) -> None:
    learned(recorder, lambda: send(recorder))
    got: list[Any] = []

    def receiver(sender: Any, **_: Any) -> None:
        got.append(sender)

    getattr(signals, signal).connect(receiver)
    try:
        for callback in send(recorder).on_published:
            callback()
    finally:
        getattr(signals, signal).disconnect(receiver)
    assert got == ["t"]


def test_methods_that_are_replaced_are_called(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those do who trace calls."""
    learned(recorder, lambda: send(recorder))
    called: list[str] = []
    for owner, name in ((Celery, "send_task"), (kombu.Producer, "publish")):
        original = getattr(owner, name)

        def traced(*args: Any, _call: Any = original, _name: str = name, **options: Any) -> Any:
            called.append(_name)
            return _call(*args, **options)

        monkeypatch.setattr(owner, name, traced)
    for _ in range(LEARNING + 1):
        send(recorder)
    assert called == ["send_task", "publish"] * (LEARNING + 1)


def test_inside_a_task_the_call_becomes_its_child(app: Celery, recorder: Recorder) -> None:
    from celery._state import _task_stack

    @app.task(shared=False, bind=True)
    def parent(self: Any) -> None: ...

    learned(recorder, lambda: send(recorder))
    parent.push_request(id="the-parent", root_id="the-root", children=[], called_directly=False)
    _task_stack.push(parent)
    try:
        message = send(recorder)
    finally:
        _task_stack.pop()
        parent.pop_request()
    assert headers(message)["parent_id"] == "the-parent"


def test_ids_are_made_as_celery_makes_them(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned(recorder, lambda: send(recorder))
    monkeypatch.setattr("celery.app.base.uuid", lambda: "made by somebody else")
    for _ in range(LEARNING):
        assert send(recorder).task_id == "made by somebody else"


def test_a_serialiser_that_is_registered_anew_says_what_it_is(recorder: Recorder) -> None:
    def register(content_type: str) -> None:
        kombu.serialization.register("anew", str, eval, content_type, "ascii")

    register("text/one")
    try:
        learned(recorder, lambda: send(recorder, serializer="anew"))
        register("text/other")
        message = send(recorder, serializer="anew")
    finally:
        kombu.serialization.unregister("anew")
    assert message.properties["content_type"] == "text/other"
    assert message.template is None  # what carries it can't take it for one like the last


def test_messages_of_a_template_say_so_and_others_do_not(recorder: Recorder) -> None:
    first, second = (send(recorder) for _ in range(LEARNING))
    assert first.template is second.template is None
    one, other = send(recorder), send(recorder)
    assert one.template is other.template is not None
    ours, theirs = ({**each.properties} for each in (one, other))
    for name in one.template.varying | {"correlation_id"}:
        for properties in (ours, theirs):
            properties.pop(name, None)
            properties["headers"].pop(name, None)
    assert ours == theirs


def test_nothing_holds_on_to_a_template_that_is_out_of_date(
    app: Celery, recorder: Recorder
) -> None:
    learned(recorder, lambda: send(recorder))
    template = weakref.ref(send(recorder).template)
    assert template() is not None
    app.conf.task_default_queue = "other"
    send(recorder)
    gc.collect()
    assert template() is None


def test_they_do_not_pile_up(recorder: Recorder) -> None:
    for number in range(5000):
        send(recorder, shadow=f"call {number}")
    assert len(recorder.templates._kinds) <= 1024
    assert len(recorder.templates.in_use) == 0
