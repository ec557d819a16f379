"""What is recorded is what Celery's own client publishes, read back raw from a real queue."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, signals
from kombu import Connection, Exchange, Queue

from bridgetask import Client, InvalidOption
from bridgetask.wire.recorder import Recorder

from ..fix_rabbitmq import close_celery, make_app
from ..servers import TESTER

QUEUE = "parity"


@pytest.fixture
def parity_app(broker_url: str) -> Iterator[Celery]:
    celery = make_app("parity", broker_url, task_default_queue=QUEUE)

    @celery.task(name="parity.plain", shared=False)
    def plain(*args: Any, **kwargs: Any) -> None: ...

    @celery.task(
        name="parity.options",
        shared=False,
        serializer="yaml",
        time_limit=30,
        soft_time_limit=20,
        ignore_result=True,
        expires=300,
        compression="gzip",
    )
    def options(*args: Any, **kwargs: Any) -> None: ...

    @celery.task(name="parity.bound", shared=False, bind=True, shadow_name=lambda *_: "shadowed")
    def bound(self: Any) -> None: ...

    yield celery
    close_celery(celery)


def normalised(message: Any, ours: str | None, theirs: str | None) -> dict[str, Any]:
    """Return all of a raw message, with what must differ taken out."""
    properties = {
        key: value for key, value in message.properties.items() if key not in {"message_id"}
    }
    if int(properties.get("expiration") or 0) > 3_600_000:  # counted from the moment of the call
        properties["expiration"] = "LATER"
    headers = dict(message.headers)
    if headers.get("task") == "parity.options":
        headers["expires"] = "LATER" if headers["expires"] else None
    text = json.dumps(
        {
            "body": message.body if isinstance(message.body, str) else message.body.hex(),
            "content": [message.content_type, message.content_encoding],
            "headers": headers,
            "properties": {k: v for k, v in properties.items() if k != "application_headers"},
            "where": [message.delivery_info["exchange"], message.delivery_info["routing_key"]],
        },
        default=str,
        sort_keys=True,
    )
    for address in (ours, theirs):
        if address:
            text = text.replace(address, "REPLY-TO")
    result: dict[str, Any] = json.loads(text)
    return result


NOW = datetime.now(UTC)
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "args": {"args": (1, "ä", [None, 2.5]), "kwargs": {"k": {"n": True}}},
    "eta": {"eta": NOW + timedelta(hours=1)},
    "naive eta": {"eta": datetime(2030, 1, 1, 12, 0, 0)},
    "eta as text": {"eta": "2030-01-01T12:00:00"},
    "expires": {"expires": NOW + timedelta(hours=2)},
    "time limits": {"time_limit": 10, "soft_time_limit": 5},
    "priority": {"priority": 7},
    "shadow": {"shadow": "seen as"},
    "headers": {"headers": {"tenant": "blue", "n": 1}},
    "transient": {"delivery_mode": "transient"},
    "ignored": {"ignore_result": True},
    "kept": {"ignore_result": False},
    "pickle": {"serializer": "pickle", "args": (NOW,)},
    "yaml": {"serializer": "yaml"},
    "msgpack": {"serializer": "msgpack", "args": (b"\x00\xff",)},
    "gzip": {"compression": "gzip", "args": ("x" * 1000,)},
    "group": {"group_id": "g", "group_index": 2},
    "parents": {"root_id": "root", "parent_id": "parent"},
    "retries": {"retries": 3},
    "stamps": {"stamped_headers": ["tenant"], "tenant": "blue"},
    "queue": {"queue": "parity-other"},
    "kombu queue": {"queue": Queue("parity-topic", Exchange("parity-x", "topic"), "a.#")},
    "exchange": {"exchange": "amq.direct", "routing_key": "parity-key"},
    "argsrepr": {"argsrepr": "(hidden)", "kwargsrepr": "{hidden}"},
    "properties": {"app_id": "app", "user_id": TESTER, "message_type": "no property"},
}


@dataclass
class Call:
    """The same call through Celery's client and through ours, and the queue that it goes to."""

    theirs: Callable[[Celery, str], Any]
    ours: Callable[[Client, str], Any]
    queue: str = QUEUE


@pytest.mark.parametrize("name", ["parity.plain", "parity.options", "parity.unregistered"])
@pytest.mark.parametrize("protocol", [2, 1])
async def test_send_task_publishes_what_celery_publishes(
    broker_url: str, parity_app: Celery, name: str, protocol: int
) -> None:
    parity_app.conf.task_protocol = protocol

    def call(options: dict[str, Any]) -> Call:
        return Call(
            lambda app, task_id: app.send_task(name, task_id=task_id, **options),
            lambda client, task_id: client.send_task(name, task_id=task_id, **options),
            getattr(options.get("queue"), "name", options.get("queue", QUEUE)),
        )

    await compare(broker_url, parity_app, {case: call(CALLS[case]) for case in CALLS})


async def test_apply_async_publishes_what_a_task_publishes(
    broker_url: str, parity_app: Celery
) -> None:
    def call(name: str) -> Call:
        task = parity_app.tasks[name]
        return Call(
            lambda app, task_id: task.apply_async(task_id=task_id),
            lambda client, task_id: client.apply_async(task, task_id=task_id),
        )

    names = ("parity.plain", "parity.options", "parity.bound")
    await compare(broker_url, parity_app, {name: call(name) for name in names})


async def test_a_signature_publishes_what_it_publishes(broker_url: str, parity_app: Celery) -> None:
    signature = parity_app.tasks["parity.plain"].s(1, k=2).set(priority=4, headers={"h": "x"})
    signature.link_error(parity_app.tasks["parity.plain"].si())
    call = Call(
        lambda app, task_id: signature.apply_async((0,), task_id=task_id),
        lambda client, task_id: client.apply_async(signature, (0,), task_id=task_id),
    )
    await compare(broker_url, parity_app, {"signature": call})


@pytest.mark.parametrize(
    "routes",
    [
        {"parity.*": {"queue": "parity-other"}},
        {"parity.plain": "parity-other"},
        (lambda name, *args, **kwargs: {"queue": "parity-other", "priority": 2},),
    ],
    ids=["glob", "name", "function"],
)
async def test_routes_are_followed(broker_url: str, parity_app: Celery, routes: Any) -> None:
    parity_app.conf.task_routes = routes
    call = Call(
        lambda app, task_id: app.send_task("parity.plain", task_id=task_id),
        lambda client, task_id: client.send_task("parity.plain", task_id=task_id),
        "parity-other",
    )
    await compare(broker_url, parity_app, {"routed": call})


async def compare(broker_url: str, app: Celery, calls: dict[str, Call]) -> None:
    """Make each call through Celery's client and through ours, and compare the raw messages."""
    with Connection(broker_url) as connection:
        channel = connection.default_channel
        for queue in {call.queue for call in calls.values()}:
            channel.queue_declare(queue, auto_delete=False, durable=True)
        channel.queue_declare(QUEUE, auto_delete=False, durable=True)
        channel.queue_bind(QUEUE, "amq.direct", "parity-key")

        def taken(queue: str, case: str) -> Any:
            deadline = time.monotonic() + 10  # Celery does not wait until its message is there
            while (message := channel.basic_get(queue, no_ack=True)) is None:
                assert time.monotonic() < deadline, f"nothing came for {case}"
            assert channel.basic_get(queue, no_ack=True) is None
            return channel.message_to_python(message)

        def publish() -> dict[str, Any]:
            messages = {}
            for case, call in calls.items():
                try:
                    call.theirs(app, "the-task-id")
                except AttributeError as error:  # up to 5.5, protocol 1 takes no text for a date
                    messages[case] = error
                else:
                    messages[case] = taken(call.queue, case)
            return messages

        expected = await asyncio.to_thread(publish)
        close_celery(app)
        async with Client(app) as client:
            for case, call in calls.items():
                their_message = expected[case]
                if isinstance(their_message, AttributeError):
                    with pytest.raises(InvalidOption, match="eta: 'str' object"):
                        call.ours(client, "the-task-id")
                    continue
                await call.ours(client, "the-task-id").sent()
                our_message = await asyncio.to_thread(taken, call.queue, case)
                addresses = client._reply_to, their_message.properties["reply_to"]
                got = normalised(our_message, *addresses)
                # Linked tasks are told where to send their results: to us.
                got["body"] = got["body"].replace(
                    '"options": {"reply_to": "REPLY-TO"}', '"options": {}'
                )
                assert got == normalised(their_message, *addresses), case
        for queue in {QUEUE, *(call.queue for call in calls.values())}:
            channel.queue_delete(queue)


@pytest.fixture
def recorder() -> Recorder:
    celery = Celery("recorder", broker="amqp://", backend="rpc://", set_as_current=False)
    return Recorder(celery, "reply", backend="rpc")


def test_receivers_of_before_task_publish_may_edit_what_is_sent(recorder: Recorder) -> None:
    def edit(body: Any, headers: Any, properties: Any, **_: Any) -> None:
        headers["traced"] = "yes"
        properties["app_id"] = "edited"
        body[1]["added"] = 1

    signals.before_task_publish.connect(edit)
    try:
        (message,) = recorder.send_task("t", (), {"x": 1}, {}).messages
    finally:
        signals.before_task_publish.disconnect(edit)
    assert message.properties["headers"]["traced"] == "yes"
    assert message.properties["app_id"] == "edited"
    assert json.loads(message.body)[1] == {"x": 1, "added": 1}


def test_a_receiver_may_record_a_call_itself(recorder: Recorder) -> None:
    inner: list[Any] = []

    def call_again(sender: str, **_: Any) -> None:
        if sender == "outer":
            inner.append(recorder.send_task("inner", None, None, {}))

    signals.before_task_publish.connect(call_again)
    try:
        outer = recorder.send_task("outer", None, None, {})
    finally:
        signals.before_task_publish.disconnect(call_again)
    assert [each.properties["headers"]["task"] for each in outer.messages] == ["outer"]
    assert [each.properties["headers"]["task"] for each in inner[0].messages] == ["inner"]


def test_task_sent_is_kept_until_the_message_is_published(recorder: Recorder) -> None:
    sent: list[str] = []

    def receiver(sender: str, task_id: str, **_: Any) -> None:
        sent.append(task_id)

    signals.task_sent.connect(receiver)
    try:
        call = recorder.send_task("t", None, None, {})
        assert sent == []
        for callback in call.messages[0].on_published:
            callback()
    finally:
        signals.task_sent.disconnect(receiver)
    assert sent == [call.result.id]


def test_linked_tasks_are_told_to_answer_to_us_at_every_depth(recorder: Recorder) -> None:
    @recorder.app.task(shared=False)
    def plain() -> None: ...

    link = plain.s().set(link=[plain.s()])
    call = recorder.apply_async(plain, None, None, {"link": [link], "link_error": plain.s()})
    embed = json.loads(call.messages[0].body)[2]
    (callback,) = embed["callbacks"]
    assert callback["options"]["reply_to"] == "reply"
    assert callback["options"]["link"][0]["options"]["reply_to"] == "reply"
    assert embed["errbacks"][0]["options"]["reply_to"] == "reply"
    assert "reply_to" not in link.options


def test_a_custom_task_class_runs_its_own_apply_async(recorder: Recorder) -> None:
    class Tagged(recorder.app.Task):  # type: ignore[name-defined, misc]
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["headers"] = {"tagged": "yes"}
            return super().apply_async(*args, **kwargs)

    @recorder.app.task(shared=False, base=Tagged)
    def tagged() -> None: ...

    call = recorder.apply_async(tagged, None, None, {})
    assert call.messages[0].properties["headers"]["tagged"] == "yes"


def test_a_custom_app_class_runs_its_own_send_task() -> None:
    class Tagging(Celery):
        def send_task(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["headers"] = {"tagged": "yes"}
            return super().send_task(*args, **kwargs)

    celery = Tagging("custom", broker="amqp://", backend="rpc://", set_as_current=False)
    call = Recorder(celery, "reply").send_task("t", None, None, {})
    assert call.messages[0].properties["headers"]["tagged"] == "yes"


def test_changes_to_a_task_count_from_the_next_call(recorder: Recorder) -> None:
    @recorder.app.task(shared=False)
    def plain() -> None: ...

    (message,) = recorder.apply_async(plain, None, None, {}).messages
    assert message.properties["content_type"] == "application/json"
    plain.serializer = "yaml"
    plain._exec_options = None
    (message,) = recorder.apply_async(plain, None, None, {}).messages
    assert message.properties["content_type"] == "application/x-yaml"


def test_inside_a_task_the_call_becomes_its_child(recorder: Recorder) -> None:
    from celery._state import _task_stack

    @recorder.app.task(shared=False, bind=True)
    def parent(self: Any) -> None: ...

    parent.push_request(id="the-parent", root_id="the-root", children=[], called_directly=False)
    _task_stack.push(parent)
    try:
        import celery._state

        call = recorder.send_task("child", None, None, {})
        children = parent.request.children
        worker_task = celery._state.get_current_worker_task()
    finally:
        _task_stack.pop()
        parent.pop_request()
    assert worker_task is not None
    headers = call.messages[0].properties["headers"]
    assert (headers["root_id"], headers["parent_id"]) == ("the-root", "the-parent")
    assert [child.id for child in children] == [call.result.id]


def test_the_worker_decides_where_a_call_leaves_open_if_its_result_is_ignored(
    recorder: Recorder,
) -> None:
    @recorder.app.task(shared=False, ignore_result=True, name="silent")
    def silent() -> None: ...

    def ignored(name: str, **options: Any) -> bool:
        call = recorder.send_task(name, None, None, options)
        return recorder.ignores_result(call, call.result, call.messages[0])

    recorder.app.finalize()
    assert ignored("silent")
    assert not ignored("silent", ignore_result=False)
    assert not ignored("unknown")
    assert ignored("unknown", ignore_result=True)
    recorder.app.conf.task_ignore_result = True
    assert ignored("unknown")
