"""Large calls are recorded in steps, and say what they say when they are recorded at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from bridgetask.wire import canvas, recorder
from bridgetask.wire.message import OutgoingMessage
from bridgetask.wire.recorder import RecordedCall

from ..recorders import recorder_for

SIZE = canvas.AT_ONCE + 30
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def members(app: Celery) -> list[Any]:
    linked = app.signature("linked")
    return [app.signature("t", (n,)).set(priority=n % 9, link=[linked]) for n in range(SIZE)]


def body(app: Celery) -> Any:
    return app.signature("body").set(queue="other", link_error=[app.signature("failed")])


def lengthened(app: Celery) -> list[Any]:
    return [each | app.signature("u") for each in members(app)]


LARGE: dict[str, Callable[[Celery], Any]] = {
    "group": lambda app: group(members(app), app=app),
    "group of a generator": lambda app: group((each for each in members(app)), app=app),
    "group of chains": lambda app: group(lengthened(app), app=app),
    "chord": lambda app: chord(members(app), body(app), app=app),
    "chord of a generator": lambda app: chord((each for each in members(app)), body(app), app=app),
    "chord with options": lambda app: chord(members(app), body(app), app=app).set(headers={"x": 1}),
    "chord with a group for a body": lambda app: chord(
        members(app), group([body(app), body(app)], app=app), app=app
    ),
    "group | task | task": lambda app: (
        group(members(app), app=app) | body(app) | app.signature("last")
    ),
    "chain of a group and a task": lambda app: chain(group(members(app), app=app), body(app)),
}
#: What Celery does another way for a list than for a generator, and is left as it is.
AT_ONCE: dict[str, Callable[[Celery], Any]] = {
    "chord of chains": lambda app: chord(lengthened(app), body(app), app=app),
    "chord of groups": lambda app: chord(
        [group(members(app)[:2], app=app) for _ in range(SIZE)], body(app), app=app
    ),
}


def record(make: Callable[[Celery], Any]) -> tuple[RecordedCall, list[OutgoingMessage]]:
    """Record a call, the steps of a large one included: as many as it has members."""
    app = Celery(
        "x", broker="amqp://127.0.0.1:1//", backend="redis://127.0.0.1:1", set_as_current=False
    )
    records = recorder_for(app, "here")
    call = records.apply_async(make(app), ("more",), {}, {"expires": None})
    messages = call.messages
    called = 0 if call.rest is None else len(call.growing.results)
    while call.rest is not None:
        results, more = records.record_more(call, 7)
        if not results:
            assert called == SIZE
            break
        called += len(results)
        messages = messages + more
    return call, messages


def shown(messages: list[OutgoingMessage]) -> list[str]:
    """Return all of the messages, and what is stored before them, with their ids numbered."""
    ids: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        return ids.setdefault(found[0], f"id {len(ids)}")

    return [
        _UUID.sub(numbered, repr((m.exchange, m.routing_key, m.body, m.properties, m.requires)))
        for m in messages
    ]


@pytest.mark.parametrize("name", LARGE)
def test_a_large_call_says_in_steps_what_it_says_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, in_steps = record(LARGE[name])
    assert call.rest is not None
    assert len(in_steps) == SIZE
    for module in (canvas, recorder):
        monkeypatch.setattr(module, "AT_ONCE", 10 * SIZE)
    monkeypatch.setattr(recorder, "_LONG", 60)
    call, at_once = record(LARGE[name])
    assert call.rest is None
    assert shown(in_steps) == shown(at_once)


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_chord_that_would_say_something_else_in_steps_is_called_at_once(name: str) -> None:
    call, messages = record(AT_ONCE[name])
    assert call.rest is None
    assert len(messages) >= SIZE
