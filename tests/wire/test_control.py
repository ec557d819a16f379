"""What Celery's control says is what goes out: the same methods, and the same messages."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import celery.app.control
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection, Exchange, Queue
from kombu.serialization import registry

import bridgetask
from bridgetask import Client, InvalidOption
from bridgetask.transports.plugs import Plugs
from bridgetask.wire.codec import Codec
from bridgetask.wire.control import Command, Purge
from bridgetask.wire.message import OutgoingMessage

from ..fix_rabbitmq import close_celery, make_app


def public_methods(cls: type) -> dict[str, Callable[..., Any]]:
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("_") and inspect.isfunction(value)
    }


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


@pytest.mark.parametrize("name", ["Control", "Inspect"])
def test_every_method_of_celery_is_there_with_its_arguments(name: str) -> None:
    """A new Celery that adds a method or an argument fails this."""
    celerys = public_methods(getattr(celery.app.control, name))
    ours = getattr(bridgetask, name)
    assert len(celerys) >= 17
    for method, function in celerys.items():
        assert inspect.iscoroutinefunction(getattr(ours, method)), method
        assert parameters(getattr(ours, method)) == parameters(function), method


def test_inspect_takes_the_arguments_of_celerys() -> None:
    assert parameters(bridgetask.Control.inspect) == parameters(celery.app.control.Inspect.__init__)


# Every command, as ``(name, args, kwargs)``.
COMMANDS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("revoke", ("an-id",), {}),
    ("revoke", (["one", "two"],), {"terminate": True, "signal": "SIGKILL"}),
    ("revoke", ("an-id", ["a@b"], True, None), {"timeout": 0.1}),
    ("revoke_by_stamped_headers", ({"stamp": ["a", "b"]},), {"terminate": True}),
    ("terminate", ("an-id",), {"signal": "SIGUSR1"}),
    ("rate_limit", ("proj.add", "10/m"), {"destination": ["a@b", "c@d"]}),
    ("time_limit", ("proj.add", 1.5), {"hard": 3}),
    ("add_consumer", ("q",), {}),
    ("add_consumer", ("q", "x", "topic", "a.#", {"durable": False}), {"destination": ("a@b",)}),
    ("cancel_consumer", ("q",), {}),
    ("enable_events", (), {}),
    ("disable_events", (), {}),
    ("pool_grow", (), {}),
    ("pool_shrink", (3,), {}),
    ("pool_restart", (["mod"],), {"reload": True}),
    ("autoscale", (8, 2), {}),
    ("shutdown", (), {"pattern": "a*", "matcher": "glob"}),
    ("heartbeat", (), {}),
    ("election", ("id", "topic", {"x": 1}), {}),
    ("ping", (), {}),
    ("broadcast", ("my_own", {"x": 1}), {"y": 2}),
    ("broadcast", ("my_own",), {"pattern": "^a", "matcher": "pcre", "timeout": None}),
]

QUESTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("report", (), {}),
    ("clock", (), {}),
    ("active", (True,), {}),
    ("scheduled", (), {}),
    ("reserved", (), {"safe": False}),
    ("stats", (), {}),
    ("revoked", (), {}),
    ("registered", ("rate_limit", "name"), {}),
    ("registered_tasks", (), {}),
    ("ping", (["a@b"],), {}),
    ("active_queues", (), {}),
    ("query_task", ("one", "two"), {}),
    ("query_task", (["one", "two"],), {}),
    ("conf", (True,), {}),
    ("hello", ("me@here",), {"revoked": {"x": 1}}),
    ("memsample", (), {}),
    ("memdump", (3,), {}),
    ("objgraph", ("Request", 5), {"max_depth": 2}),
]


def test_no_method_is_left_out_of_the_comparison() -> None:
    broadcasting = public_methods(celery.app.control.Control).keys() - {"purge", "discard_all"}
    assert {name for name, _, _ in COMMANDS} == broadcasting
    assert {name for name, _, _ in QUESTIONS} == public_methods(celery.app.control.Inspect).keys()


@pytest.fixture
def control_app(broker_url: str) -> Iterator[Celery]:
    """An app with a control exchange that no worker listens to."""
    app = make_app("commands", broker_url, control_exchange=f"tests-{uuid4()}")
    yield app
    close_celery(app)


@pytest.fixture
async def control_client(control_app: Celery) -> AsyncIterator[Client]:
    async with Client(control_app) as client:
        yield client


@contextmanager
def listening(app: Celery) -> Iterator[Callable[[], Any]]:
    """Bind a queue to the control exchange, as a worker does; yield what takes a raw message."""
    with Connection(app.conf.broker_url) as connection:
        channel = connection.default_channel
        queue = Queue(
            f"{app.conf.control_exchange}.listener",
            Exchange(f"{app.conf.control_exchange}.pidbox", "fanout", durable=False),
            exclusive=True,
            durable=False,
        )
        queue(channel).declare()

        def take() -> Any:
            deadline = time.monotonic() + 5
            while (message := channel.basic_get(queue.name, no_ack=True)) is None:
                assert time.monotonic() < deadline, "no command came"
                time.sleep(0.01)  # Celery does not wait for the broker to confirm
            return message

        yield take


def comparable(message: Any, app: Celery) -> dict[str, Any]:
    """Return all of a message but for what tells one command from the next."""
    channel = message.channel
    decoded = channel.message_to_python(message)
    body = decoded.decode()
    properties = dict(message.properties)
    headers = dict(properties.pop("application_headers"))
    assert isinstance(headers.pop("clock"), int)
    expires = headers.pop("expires")
    if "ticket" in body:
        assert len(body.pop("ticket")) == 36
        assert len(body["reply_to"].pop("routing_key")) == 36
    properties.pop("message_id", None)  # by which returned messages are recognised
    delivery = message.delivery_info
    return {
        "exchange": delivery["exchange"],
        "routing_key": delivery["routing_key"],
        "properties": properties,
        "headers": headers,
        "expires": bool(expires),
        "body": body,
        "keys": list(body),
    }


@pytest.mark.parametrize("reply", [False, True])
@pytest.mark.parametrize(("name", "args", "kwargs"), COMMANDS)
async def test_a_command_is_the_message_that_celery_sends(
    control_app: Celery,
    control_client: Client,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    reply: bool,
) -> None:
    if reply and name not in {"ping", "election"}:
        kwargs = {"timeout": 0.01, **kwargs, "reply": True}
        if kwargs["timeout"] is None:
            kwargs["timeout"] = 0.01
    elif name == "ping":
        kwargs = {"timeout": 0.01 if reply else 0}
    elif reply:
        return
    method = getattr(control_app.control, name)
    with listening(control_app) as take:
        celerys_answer = await asyncio.to_thread(method, *args, **kwargs)
        celerys = comparable(take(), control_app)
        our_answer = await getattr(control_client.control, name)(*args, **kwargs)
        ours = comparable(take(), control_app)
    assert ours == celerys
    assert our_answer == celerys_answer


@pytest.mark.parametrize(("name", "args", "kwargs"), QUESTIONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"destination": ["a@b"]}, {"pattern": "*", "matcher": "glob"}, {"pattern": "a"}],
    ids=["all", "destination", "pattern", "pattern alone"],
)
async def test_a_question_is_the_message_that_celery_sends(
    control_app: Celery,
    control_client: Client,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> None:
    options = {"timeout": 0.01, **options}
    with listening(control_app) as take:
        celerys_inspect = control_app.control.inspect(**options)
        assert (await asyncio.to_thread(getattr(celerys_inspect, name), *args, **kwargs)) is None
        celerys = comparable(take(), control_app)
        our_inspect = control_client.control.inspect(**options)
        assert (await getattr(our_inspect, name)(*args, **kwargs)) is None
        ours = comparable(take(), control_app)
    assert ours == celerys


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
async def test_commands_are_serialised_as_the_app_says(
    control_app: Celery, serializer: str
) -> None:
    control_app.conf.update(task_serializer=serializer, accept_content=[serializer])
    with listening(control_app) as take:
        await asyncio.to_thread(control_app.control.revoke, "an-id")
        async with Client(control_app) as client:
            await client.control.revoke("an-id")
        celerys, ours = take(), take()
    content_type = registry.name_to_type[serializer]
    assert ours.properties["content_type"] == celerys.properties["content_type"] == content_type
    assert ours.body == celerys.body


# Running Celery's code up to its I/O, without any.


def codec(**conf: Any) -> Codec:
    return Plugs.of(make_app("wire", "amqp://127.0.0.1:1//", **conf)).codec("address")


def test_a_conversation_goes_on_where_a_command_leads_to_another() -> None:
    conversation = codec().mailbox.converse(
        lambda control: control.revoke_by_stamped_headers({"a": "b"}, reply=True, limit=2)
    )
    first = next(conversation)
    assert isinstance(first, Command)
    assert (first.name, first.limit, first.timeout) == ("revoke_by_stamped_headers", 2, 1.0)
    assert first.ticket
    second = conversation.send([{"w@h": {"ok": {"id-1", "id-2"}}}])  # as pickle brings it
    assert (second.name, sorted(second.arguments["task_id"])) == ("revoke", ["id-1", "id-2"])
    assert second.ticket not in {None, first.ticket}
    with pytest.raises(StopIteration) as returned:
        conversation.send([{"w@h": {"ok": "done"}}])
    assert returned.value.value == [{"w@h": {"ok": "done"}}]


def test_purging_asks_for_every_queue_and_adds_up() -> None:
    conversation = codec(
        task_queues=[Queue("one", routing_key="1"), Queue("two", routing_key="2")]
    ).mailbox.converse(lambda control: control.purge())
    first = next(conversation)
    assert isinstance(first, Purge)
    assert {each.operation for each in first.declarations} >= {"queue_declare", "queue_bind"}
    queues = {first.queue}
    with pytest.raises(StopIteration) as returned:
        while True:
            request = conversation.send(3)
            assert isinstance(request, Purge)
            queues.add(request.queue)
    # Up to Celery 5.5 the default queue is one of them.
    assert {"one", "two"} <= queues <= {"one", "two", "celery"}
    assert returned.value.value == 3 * len(queues)


def test_an_apps_own_control_class_is_the_one_that_runs() -> None:
    class Loud(celery.app.control.Control):
        def broadcast(self, command: str, *args: Any, **kwargs: Any) -> Any:
            return super().broadcast(command.upper(), *args, **kwargs)

    app = Celery("loud", broker="amqp://127.0.0.1:1//", set_as_current=False, control=Loud)
    mailbox = Plugs.of(app).codec("address").mailbox
    assert next(mailbox.converse(lambda control: control.revoke("x"))).name == "REVOKE"


def test_the_apps_own_control_stays_as_it_is() -> None:
    app = make_app("same", "amqp://127.0.0.1:1//")
    before = dict(vars(app.control)), dict(vars(app.control.mailbox))
    mailbox = Plugs.of(app).codec("address").mailbox
    next(mailbox.converse(lambda control: control.ping(callback=print)))
    next(mailbox.converse(lambda control: control.inspect(app=control.app).stats()))
    assert app.control.app is app
    assert vars(app.control).items() >= before[0].items()
    assert vars(app.control.mailbox) == before[1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"destination": "worker@host"}, "destination: must be a list or tuple, not str"),
        ({"timeout": "soon"}, "timeout: must be a number of seconds, not 'soon'"),
        ({"limit": "few"}, "limit: must be a whole number, not 'few'"),
        ({"callback": 1}, "callback: must be callable, not 1"),
        ({"reply": True, "timeout": None}, "timeout: must be given where no limit or destination"),
        ({"connection": object()}, "connection: can't be used: bridgetask uses its own"),
        ({"channel": object()}, "channel: can't be used: bridgetask uses its own"),
        ({"pattern": 1, "matcher": "glob"}, "pattern: must be a string, not int"),
        ({"pattern": "*", "matcher": "odd"}, "matcher: 'odd' is not registered; known are glob"),
        ({"arguments": {"x": object()}}, "arguments: can't be serialised"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(options: dict[str, Any], problem: str) -> None:
    conversation = codec().mailbox.converse(lambda control: control.broadcast("x", **options))
    with pytest.raises(InvalidOption, match=problem):
        next(conversation)


@pytest.mark.skipif(
    not hasattr(celery.app.control, "ImproperlyConfigured"), reason="since Celery 5.6"
)
def test_impossible_settings_are_refused_by_name() -> None:
    with pytest.raises(InvalidOption, match=r"control_queue_exclusive: .*cannot both be True"):
        codec(control_queue_exclusive=True, control_queue_durable=True)


# Which tasks a command revokes.


def command(name: str, arguments: dict[str, Any], *, to_all: bool = True) -> Command:
    message = OutgoingMessage("", "", b"", {})
    return Command(name, arguments, message, to_all, None, 1.0, None, None)


def test_revoked_ids_are_those_that_all_workers_are_told_of() -> None:
    assert command("revoke", {"task_id": "x"}).revoked_ids == ["x"]
    assert command("revoke", {"task_id": ["x", "y"]}).revoked_ids == ["x", "y"]
    assert command("revoke", {"task_id": "x"}, to_all=False).revoked_ids == ()
    assert command("rate_limit", {"task_id": "x"}).revoked_ids == ()
    assert command("revoke_by_stamped_headers", {"headers": {}}).revokes_by_stamps
    assert not command("revoke_by_stamped_headers", {}, to_all=False).revokes_by_stamps


names = st.sampled_from("abc")
values = st.sampled_from("xyz")


@given(
    stamps=st.dictionaries(names, values | st.lists(values, max_size=2)),
    headers=st.dictionaries(names, values | st.lists(values, max_size=2)),
)
@pytest.mark.skipif(celery.VERSION < (5, 6), reason="workers looked at the first stamp alone")
def test_stamps_revoke_as_in_celerys_worker(
    stamps: dict[str, Any], headers: dict[str, Any]
) -> None:
    from celery.worker import control, request, state

    class Task(request.Request):
        """A task in a worker, as far as revoking it by stamps goes."""

        def __init__(self) -> None:
            self._already_revoked = False
            self._request_dict = {"stamped_headers": list(stamps), "stamps": stamps}
            self._message = SimpleNamespace(headers=self._request_dict)
            self.id, self.name = "id", "name"
            self.announced = False

        expires = None

        def _announce_revoked(self, *_: Any) -> None:
            self.announced = True

    state.revoked_stamps.clear()
    control.revoke_by_stamped_headers(None, headers)
    try:
        assert command("revoke_by_stamped_headers", {"headers": headers}).revokes(stamps) is (
            Task().revoked()
        )
    finally:
        state.revoked_stamps.clear()


def test_stamps_may_be_given_as_a_list() -> None:
    revoking = command("revoke_by_stamped_headers", {"headers": ["a=x", "b=y"]})
    assert revoking.revokes({"b": "y"})
    assert not revoking.revokes({"b": "x"})
