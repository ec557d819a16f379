"""Signatures that are called by a function of ours, and are Celery's in all else."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import celery
import pytest
from celery import Celery, Task
from celery.canvas import Signature, chain, chord, group, maybe_signature, xmap, xstarmap
from celery.exceptions import Ignore
from celery.result import ResultBase
from kombu.utils.uuid import uuid

from bridgetask.wire.signature import RedirectedSignature, celery_class

from ..recorders import recorder_for
from ..tasks import add, total

Called = tuple[Signature[Any], Any, Any, dict[str, Any]]


def call(signature: Signature[Any], args: Any, kwargs: Any, **options: Any) -> Called:
    return signature, args, kwargs, options


def ours(signature: Signature[Any]) -> Any:
    return RedirectedSignature.of(signature, call)


@pytest.fixture
def own_app() -> Celery:
    """An app whose own calls go to a queue in this process, with no worker."""
    app = Celery("x", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = uuid()
    return app


def sent_by_celery(app: Celery) -> int:
    with app.connection_for_read() as connection:
        return int(connection.SimpleQueue(app.conf.task_default_queue).qsize())


@pytest.fixture
def own_add(own_app: Celery) -> Task[..., Any]:
    @own_app.task(name="own_add", shared=False)
    def own_add(x: int, y: int) -> int:
        return x + y

    return own_add


MAKE: dict[str, Callable[[], Any]] = {
    "task": lambda: add.s(1, 2),
    "immutable": lambda: add.si(1, 2),
    "chain": lambda: add.s(1, 2) | add.s(3),
    "group": lambda: group(add.s(1, 1), add.s(2, 2)),
    "group of a generator": lambda: group(add.s(n, n) for n in range(3)),
    "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()),
    "map": lambda: add.map([1, 2]),
    "starmap": lambda: add.starmap([(1, 2)]),
    "chunks": lambda: add.chunks([(1, 2), (3, 4)], 1),
}
every_kind = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


@every_kind
def test_it_is_celerys_signature_with_the_same_content(make: Callable[[], Any]) -> None:
    plain = make()
    signature = ours(plain)
    assert isinstance(signature, type(plain))
    assert isinstance(signature, celery.utils.abstract.CallableSignature)
    assert celery_class(signature) is celery_class(plain) is type(plain)
    assert signature == plain
    assert dict(signature) == dict(plain)
    assert repr(signature) == repr(plain)
    assert signature.options is plain.options
    assert maybe_signature(signature) is signature


@every_kind
def test_its_calls_are_redirected(make: Callable[[], Any]) -> None:
    signature = ours(make())
    assert signature.apply_async((1,), {"a": 2}, priority=3) == (
        signature,
        (1,),
        {"a": 2},
        {"priority": 3},
    )
    assert signature.delay(1, a=2) == (signature, (1,), {"a": 2}, {})


def test_calling_it_runs_a_task_here_and_calls_the_rest() -> None:
    assert ours(add.s(1))(2) == 3
    for name in ("chain", "group", "chord", "chunks"):
        signature = ours(MAKE[name]())
        assert signature()[0] is signature


@every_kind
def test_what_is_made_of_it_is_redirected_too(make: Callable[[], Any]) -> None:
    signature = ours(make())
    for made in (
        signature.clone(),
        signature.partial(),
        signature.replace(options={"priority": 1}),
        signature.set(priority=1),
        signature | add.s(1),
        signature | ours(add.s(1)),
        signature | (add.s(1) | add.s(2)),
        signature | group(add.s(1), add.s(2)),
        add.s(1) | signature,
    ):
        assert isinstance(made, RedirectedSignature)
        assert made.delay()[0] is made
    assert signature.set(priority=1) is signature


def test_it_makes_a_chain_with_signatures_only() -> None:
    for wrong in (3, add):
        with pytest.raises(TypeError):
            _ = ours(add.s(1)) | wrong
        with pytest.raises(TypeError):
            _ = wrong | ours(add.s(1))


def test_a_chain_says_the_same_as_celerys() -> None:
    one, two, three = add.s(1, 1), add.s(2), add.s(3)
    chained = ours(one) | two | ours(three)
    assert chained == one | two | three
    assert chained | ours(one | two) == one | two | three | one | two
    assert (one | ours(two)).delay()[0] == one | two


def test_the_group_of_chunks_is_redirected() -> None:
    grouped = ours(MAKE["chunks"]()).group()
    assert grouped.delay()[0] is grouped
    assert grouped.skew(start=1) is grouped
    assert [type(member) for member in grouped.tasks] == [xstarmap, xstarmap]
    assert not hasattr(ours(MAKE["map"]()), "group")
    assert isinstance(ours(MAKE["map"]()), xmap)


@every_kind
def test_it_is_serialised_as_celerys(make: Callable[[], Any]) -> None:
    plain = make()
    signature = ours(plain)
    assert json.dumps(signature, default=list) == json.dumps(plain, default=list)
    assert Signature.from_dict(dict(signature)) == plain
    assert pickle.dumps(signature) == pickle.dumps(plain)
    assert not isinstance(pickle.loads(pickle.dumps(signature)), RedirectedSignature)


@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack"])
@pytest.mark.parametrize("where", ["link", "link_error", "set", "chain", "group", "chord"])
def test_messages_with_it_say_what_they_say_with_celerys(serializer: str, where: str) -> None:
    app = Celery(
        "x", broker="amqp://127.0.0.1:1//", backend="redis://127.0.0.1:1", set_as_current=False
    )
    app.conf.task_serializer = serializer
    records = recorder_for(app, "here")

    def messages(redirected: Callable[[Any], Any]) -> list[tuple[str | bytes, Any]]:
        signature = redirected(app.signature("t", (1,), task_id="id", reply_to="there"))
        other = redirected(app.signature("u", (), task_id="other id", reply_to="there"))
        options: dict[str, Any] = {"task_id": "the id"}
        if where.startswith("link"):
            options[where] = [other, redirected(other | signature)]
        elif where == "set":
            signature = signature.set(link=[other])
        elif where == "chain":
            signature = redirected(signature) | other
        elif where == "group":
            signature = group([signature, other], app=app)
        else:
            header = group([signature], app=app, task_id="group id")
            signature = redirected(chord(header, other, app=app, task_id="chord id"))
        recorded = records.apply_async(signature, (), {}, options)
        return [(each.body, each.properties["headers"]) for each in recorded.messages]

    assert messages(ours) == messages(lambda plain: plain) != []


def test_a_recorded_call_is_celerys_own(own_add: Task[..., Any]) -> None:
    """It would go round in circles if it were redirected again."""
    app = own_add.app
    app.conf.update(broker_url="amqp://127.0.0.1:1//", result_backend="rpc://")
    records = recorder_for(app, "here")
    members = [ours(own_add.s(1, 1)), ours(own_add.s(2, 2) | ours(own_add.s(3)))]
    recorded = records.apply_async(ours(group(members)), (), {}, {})
    assert [each.properties["headers"]["task"] for each in recorded.messages] == ["own_add"] * 2


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        (lambda s: group(s(1, 1), s(2, 2)), 2),
        (lambda s: group([s(1, 1)]), 1),
        (lambda s: group(s(n, n) for n in range(3)), 3),
        (lambda s: chain(s(1, 1), s(2)), 1),
        (lambda s: chord([s(1, 1), s(2, 2)], s(3)), 2),
        (lambda s: chord([], s(3)), 1),
        (lambda s: group(chain(s(1, 1), s(2)), s(1, 1) | s(2)), 2),
        (lambda s: chain(s(1, 1), group(s(1), s(2)), s(3)), 1),
    ],
)
def test_celerys_own_canvas_sends_its_members_itself(
    own_app: Celery, own_add: Task[..., Any], make: Callable[[Any], Any], messages: int
) -> None:
    called = make(lambda *args: ours(own_add.s(*args))).delay()
    assert isinstance(called, ResultBase)
    assert sent_by_celery(own_app) == messages


def test_what_a_task_is_replaced_with_in_a_worker_is_called_by_celery(
    own_app: Celery, own_add: Task[..., Any]
) -> None:
    own_add.push_request(id="replaced", called_directly=False)
    with pytest.raises(Ignore):
        own_add.replace(ours(own_add.s(1, 2)))
    assert sent_by_celery(own_app) == 1


def test_a_link_of_a_task_that_runs_here_is_called_by_celery(
    own_app: Celery, own_add: Task[..., Any]
) -> None:
    ran = []

    @own_app.task(shared=False)
    def note(value: int) -> None:
        ran.append(value)

    own_app.conf.task_always_eager = True
    own_add.apply_async((1, 2), link=[ours(note.s()), ours(note.s())])
    assert ran == [3, 3]
