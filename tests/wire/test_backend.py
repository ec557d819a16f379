from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chord, group

from bridgetask import Client, InvalidOption
from bridgetask.wire.canvas import SentGroup, SentResult
from bridgetask.wire.recorder import Recorder

from ..fix_redis import AppFactory, with_celerys_backend
from ..recorders import recorder_for
from ..redis_servers import Redis


def contents(backend: Any) -> dict[bytes, tuple[Any, int]]:
    """Return key -> what Celery reads there, and the seconds it is kept for."""
    redis = backend.client
    return {key: (backend.decode(redis.get(key)), redis.ttl(key)) for key in redis.keys("*")}


def saved_group(backend: Any) -> Any:
    return backend.save_group("g", SentGroup("g", [SentResult("a"), SentResult("b")]))


def complex_chord(backend: Any) -> None:
    inner = SentGroup("inner", [SentResult("a")])
    backend.apply_chord(("g", [inner, SentResult("b")]), None)


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"result_expires": None},
        {"result_chord_expires": 50},
        {"result_backend_transport_options": {"global_keyprefix": "p"}},
        {"result_compression": "gzip"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "write",
    [lambda backend: backend.set_chord_size("g", 7), saved_group, complex_chord],
    ids=["set_chord_size", "save_group", "apply_chord"],
)
async def test_what_is_written_is_what_celery_writes(
    store_app: AppFactory,
    redis_server: Redis,
    conf: dict[str, Any],
    write: Callable[[Any], object],
) -> None:
    for db in ("8", "9"):
        redis_server.cli("-n", db, "FLUSHDB")
        redis_server.cli("-n", db, "SET", "celery-taskset-meta-g.c", '"claimed"')
    celerys, bridged = (store_app(redis_server.url(db=db), **conf) for db in (8, 9))
    await with_celerys_backend(celerys, write)
    async with Client(bridged) as client:
        session: Any = client._sessions.current
        await session.store.write(client._sessions.codec.recorder.record_writes(write))
    theirs = await with_celerys_backend(celerys, contents)
    ours = await with_celerys_backend(bridged, contents)
    assert ours.keys() == theirs.keys()
    for key, (value, kept) in theirs.items():
        assert ours[key][0] == value
        assert abs(ours[key][1] - kept) <= 2
    assert any(b"celery-taskset-meta-g" in key for key in ours)


@pytest.fixture
def stores() -> Recorder:
    celery = Celery("stores", broker="amqp://", backend="redis://nowhere", set_as_current=False)
    return recorder_for(celery, "reply")


def test_what_a_chord_needs_is_kept_with_the_message_that_it_must_precede(
    stores: Recorder,
) -> None:
    sign = stores.app.signature
    header = group([sign("t", (number,)) for number in range(3)])
    call = stores.apply_async(chord(header, sign("end"), app=stores.app), None, None, {})
    assert [len(message.requires) > 0 for message in call.messages] == [False, False, True]
    commands = [each for write in call.messages[-1].requires for each in write.commands]
    key = b"celery-taskset-meta-" + call.result.parent.id.encode() + b".s"
    assert any(key in command and 3 in command for command in commands)


def test_nothing_is_connected_to_while_a_call_is_recorded(stores: Recorder) -> None:
    (message,) = stores.send_task("t", None, None, {}).messages
    assert message.requires == ()


def test_a_chord_is_refused_where_nothing_can_count_its_parts() -> None:
    celery = Celery("rpc", broker="amqp://", backend="rpc://", set_as_current=False)
    header = [celery.signature("t"), celery.signature("t")]
    with pytest.raises(InvalidOption, match="chord"):
        recorder_for(celery, "reply").apply_async(
            chord(header, celery.signature("t"), app=celery), None, None, {}
        )
